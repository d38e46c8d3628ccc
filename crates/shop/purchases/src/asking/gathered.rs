//! Combines the answers of the sources. Pure: no question is asked here.

use std::collections::{BTreeSet, HashMap};

use headwater::Positions;
use headwater::http::cut;
use serde::Deserialize;
use uuid::Uuid;

use crate::purchase::{self, Again, Cursor, Part, Purchase};

/// A page of a user's orders.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(super) orders: Vec<Order>,
    /// The order after which the next page starts.
    pub(super) next: Option<Uuid>,
}

#[derive(Debug)]
pub(super) struct Order {
    pub(super) product_ids: Vec<Uuid>,
    /// Milliseconds since 1970.
    pub(super) placed_at: i64,
}

/// The present title and image of a product.
#[derive(Debug, Deserialize)]
pub(crate) struct Product {
    pub(super) id: Uuid,
    pub(super) title: String,
    pub(super) image: String,
}

/// When a user ordered each product, and how often.
#[derive(Debug, Default)]
pub(super) struct Ordered(HashMap<Uuid, Times>);

/// The orders of a product.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Milliseconds since 1970.
    first: i64,
    last: i64,
    number: u32,
}

impl Ordered {
    pub(super) fn add(&mut self, orders: Vec<Order>) {
        for mut order in orders {
            // An order that has a product twice counts once.
            order.product_ids.sort_unstable();
            order.product_ids.dedup();
            let at = order.placed_at;
            for product in order.product_ids {
                let times = self.0.entry(product).or_insert(Times {
                    first: at,
                    last: at,
                    number: 0,
                });
                times.first = times.first.min(at);
                times.last = times.last.max(at);
                times.number += 1;
            }
        }
    }

    /// The number of products.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A part of the list, and whether more products follow.
    pub(super) fn part(&self, part: Part) -> (Vec<(Cursor, Again)>, bool) {
        let is_oldest_first = part.order == purchase::Order::OldestFirst;
        let is_after = |place: &Cursor| {
            let from = part.from;
            from.is_none_or(|from| *place != from && (*place > from) == is_oldest_first)
        };
        // Keeps a page and one more.
        let mut page = BTreeSet::new();
        for (id, times) in &self.0 {
            let place = Cursor {
                first_ordered_at: times.first,
                product_id: *id,
            };
            if is_after(&place) && page.insert(place) && page.len() > part.limit + 1 {
                if is_oldest_first {
                    page.pop_last();
                } else {
                    page.pop_first();
                }
            }
        }
        let mut page: Vec<Cursor> = page.into_iter().collect();
        if !is_oldest_first {
            page.reverse();
        }
        let more = cut(&mut page, part.limit);
        let again = |place: &Cursor| {
            let times = self.0[&place.product_id];
            Again {
                span: times.last.saturating_sub(times.first),
                times: times.number.into(),
            }
        };
        let page = page.into_iter().map(|place| (place, again(&place)));
        (page.collect(), more)
    }
}

/// The purchases at `places`, with the titles and images of `products`.
pub(super) fn with_looks(
    places: Vec<(Cursor, Again)>,
    products: Vec<Product>,
) -> Vec<(Cursor, Purchase)> {
    let looks = products.into_iter();
    let mut looks: HashMap<Uuid, _> = looks.map(|it| (it.id, (it.title, it.image))).collect();
    let purchase = |(place, again): (Cursor, Again)| {
        let look = looks.remove(&place.product_id);
        (place, Purchase::new(place, again, look))
    };
    places.into_iter().map(purchase).collect()
}

/// Adds the positions of another answer. If a source was asked several times, its lowest position
/// counts.
pub(super) fn add_positions(as_of: &mut Positions, answer: Positions) {
    for (source, position) in answer.0 {
        let lowest = as_of.0.entry(source).or_insert(position);
        *lowest = position.min(*lowest);
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

    fn all(order: purchase::Order) -> Part {
        Part {
            limit: 100,
            from: None,
            order,
            with_newest: false,
        }
    }

    #[test]
    fn the_first_order_of_a_product_counts_and_decides_its_place() {
        let mut ordered = Ordered::default();
        // 1.1 s is later than 1 s, although its text sorts first.
        ordered.add(vec![order(1100, &[3, 1]), order(1000, &[2])]);
        ordered.add(vec![order(999, &[1]), order(5000, &[2, 2])]);
        let (places, more) = ordered.part(all(purchase::Order::OldestFirst));
        assert!(!more);
        let purchases = with_looks(places, vec![product(3), product(1)]);
        let shown: Vec<_> = purchases
            .iter()
            .map(|(_, it)| {
                let (first, last) = (&*it.first_ordered_at, &*it.last_ordered_at);
                (it.product_id.as_u128(), first, last, it.times)
            })
            .collect();
        let second = "1970-01-01T00:00:01.100Z";
        assert_eq!(
            shown,
            [
                (1, "1970-01-01T00:00:00.999Z", second, 2),
                (2, "1970-01-01T00:00:01Z", "1970-01-01T00:00:05Z", 2),
                (3, second, second, 1)
            ]
        );
        assert_eq!(purchases[0].1.title.as_deref(), Some("Thing 1"));
        assert_eq!(purchases[1].1.title, None, "an unknown product");
    }

    #[test]
    fn parts_follow_one_another_in_both_orders() {
        let mut ordered = Ordered::default();
        // Three at the same time: sorted by id.
        ordered.add(vec![order(7, &[2, 0, 1]), order(9, &[4]), order(3, &[9])]);
        for (order, all) in [
            (purchase::Order::OldestFirst, [9, 0, 1, 2, 4]),
            (purchase::Order::NewestFirst, [4, 2, 1, 0, 9]),
        ] {
            let mut seen = Vec::new();
            let mut part = Part {
                limit: 2,
                from: None,
                order,
                with_newest: false,
            };
            loop {
                let (places, more) = ordered.part(part);
                seen.extend(places.iter().map(|(place, _)| place.product_id.as_u128()));
                part.from = places.last().map(|(place, _)| *place);
                if !more {
                    break;
                }
            }
            assert_eq!(seen, all);
        }
    }

    #[test]
    fn an_answer_is_as_of_the_lowest_position_of_each_source() {
        let mut as_of = Positions::default();
        for answer in ["orders:7", "users:3", "orders:5", "orders:9"] {
            add_positions(&mut as_of, answer.parse().unwrap());
        }
        assert_eq!(as_of.to_string(), "orders:5,users:3");
    }
}
