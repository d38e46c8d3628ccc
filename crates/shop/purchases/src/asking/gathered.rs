//! What the sources said, put together. Pure: no question is asked here.

use std::collections::{BTreeSet, HashMap};

use headwater::Positions;
use headwater::http::cut;
use serde::Deserialize;
use uuid::Uuid;

use crate::answer::Purchase;
use crate::part::{self, Cursor, Part};

/// A page of a user's orders.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(super) orders: Vec<Order>,
    /// Where the next page begins: after this order.
    pub(super) next: Option<Uuid>,
}

#[derive(Debug)]
pub(super) struct Order {
    pub(super) product_ids: Vec<Uuid>,
    /// Milliseconds since 1970.
    pub(super) placed_at: i64,
}

/// A product as it looks now.
#[derive(Debug, Deserialize)]
pub(crate) struct Product {
    pub(super) id: Uuid,
    pub(super) title: String,
    pub(super) image: String,
}

/// When a user ordered each product for the first time, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct FirstOrdered(HashMap<Uuid, i64>);

impl FirstOrdered {
    pub(super) fn add(&mut self, orders: Vec<Order>) {
        for order in orders {
            for product in order.product_ids {
                let first = self.0.entry(product).or_insert(order.placed_at);
                *first = order.placed_at.min(*first);
            }
        }
    }

    /// How many products there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A part of the list, and whether there are others after it.
    pub(super) fn part(&self, part: Part) -> (Vec<Cursor>, bool) {
        let places = self.0.iter().map(|(id, at)| Cursor {
            first_ordered_at: *at,
            product_id: *id,
        });
        let is_after = |place: &Cursor| match (part.from, part.order) {
            (None, _) => true,
            (Some(from), part::Order::OldestFirst) => *place > from,
            (Some(from), part::Order::NewestFirst) => *place < from,
        };
        // Of all of them it keeps a page and one more.
        let mut page = BTreeSet::new();
        for place in places.filter(is_after) {
            page.insert(place);
            if page.len() > part.limit + 1 {
                match part.order {
                    part::Order::OldestFirst => page.pop_last(),
                    part::Order::NewestFirst => page.pop_first(),
                };
            }
        }
        let mut page: Vec<Cursor> = match part.order {
            part::Order::OldestFirst => page.into_iter().collect(),
            part::Order::NewestFirst => page.into_iter().rev().collect(),
        };
        let more = cut(&mut page, part.limit);
        (page, more)
    }
}

/// The purchases at `places`, as `products` look.
pub(super) fn with_looks(places: Vec<Cursor>, products: Vec<Product>) -> Vec<(Cursor, Purchase)> {
    let looks = products.into_iter().map(|product| {
        let Product { id, title, image } = product;
        (id, (title, image))
    });
    let mut looks: HashMap<Uuid, (String, String)> = looks.collect();
    let places = places.into_iter();
    let purchases =
        places.map(|place| (place, Purchase::new(place, looks.remove(&place.product_id))));
    purchases.collect()
}

/// What all answers together are as of: of a source that was asked more than once, the lowest.
#[derive(Debug, Default)]
pub(super) struct AsOf(Positions);

impl AsOf {
    pub(super) fn add(&mut self, positions: Positions) {
        for (source, position) in positions.0 {
            let lowest = self.0.0.entry(source).or_insert(position);
            *lowest = position.min(*lowest);
        }
    }
}

impl From<Positions> for AsOf {
    fn from(positions: Positions) -> Self {
        Self(positions)
    }
}

impl From<AsOf> for Positions {
    fn from(as_of: AsOf) -> Self {
        as_of.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(placed_at: i64, products: &[u128]) -> Order {
        Order {
            product_ids: products.iter().map(|id| Uuid::from_u128(*id)).collect(),
            placed_at,
        }
    }

    fn product(id: u128) -> Product {
        Product {
            id: Uuid::from_u128(id),
            title: format!("Thing {id}"),
            image: String::new(),
        }
    }

    fn all(order: part::Order) -> Part {
        Part {
            limit: 100,
            from: None,
            order,
        }
    }

    #[test]
    fn the_first_order_of_a_product_counts_and_decides_its_place() {
        let mut ordered = FirstOrdered::default();
        // 1.1 s is later than 1 s, and its text sorts before it.
        ordered.add(vec![order(1100, &[3, 1]), order(1000, &[2])]);
        ordered.add(vec![order(999, &[1]), order(5000, &[2, 2])]);
        let (places, more) = ordered.part(all(part::Order::OldestFirst));
        assert!(!more);
        let purchases = with_looks(places, vec![product(3), product(1)]);
        let shown: Vec<_> = purchases
            .iter()
            .map(|(_, one)| (one.product_id.as_u128(), one.first_ordered_at.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (1, "1970-01-01T00:00:00.999Z"),
                (2, "1970-01-01T00:00:01Z"),
                (3, "1970-01-01T00:00:01.100Z")
            ]
        );
        assert_eq!(purchases[0].1.title.as_deref(), Some("Thing 1"));
        assert_eq!(purchases[1].1.title, None, "of this one nothing was told");
    }

    #[test]
    fn parts_follow_one_another_in_both_orders() {
        let mut ordered = FirstOrdered::default();
        // Three of them in the same moment: by id.
        ordered.add(vec![order(7, &[2, 0, 1]), order(9, &[4]), order(3, &[9])]);
        for (order, all) in [
            (part::Order::OldestFirst, [9, 0, 1, 2, 4]),
            (part::Order::NewestFirst, [4, 2, 1, 0, 9]),
        ] {
            let mut seen = Vec::new();
            let mut part = Part {
                limit: 2,
                from: None,
                order,
            };
            loop {
                let (places, more) = ordered.part(part);
                seen.extend(places.iter().map(|place| place.product_id.as_u128()));
                part.from = places.last().copied();
                if !more {
                    break;
                }
            }
            assert_eq!(seen, all);
        }
    }

    #[test]
    fn an_answer_is_as_of_the_lowest_position_of_each_source() {
        let mut as_of = AsOf::default();
        for answer in ["orders:7", "users:3", "orders:5", "orders:9"] {
            as_of.add(answer.parse().unwrap());
        }
        assert_eq!(Positions::from(as_of).to_string(), "orders:5,users:3");
    }
}
