//! What the sources said, put together. Pure: no question is asked here.

use std::collections::HashMap;

use headwater::Positions;
use serde::Deserialize;
use uuid::Uuid;

use crate::answer::Purchase;

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

    /// The products, `max` at a time.
    pub(super) fn chunks(&self, max: usize) -> Vec<Vec<Uuid>> {
        let mut ids: Vec<Uuid> = self.0.keys().copied().collect();
        ids.sort_unstable();
        ids.chunks(max).map(<[Uuid]>::to_vec).collect()
    }

    /// The purchases, those ordered first first, as `products` look.
    pub(super) fn with(self, products: Vec<Product>) -> Vec<Purchase> {
        let mut looks: HashMap<Uuid, Product> = products
            .into_iter()
            .map(|product| (product.id, product))
            .collect();
        let mut ordered: Vec<(i64, Uuid)> = self.0.into_iter().map(|(id, at)| (at, id)).collect();
        ordered.sort_unstable();
        let purchase = |(at, product_id)| {
            let (title, image) = looks
                .remove(&product_id)
                .map(|product| (product.title, product.image))
                .unzip();
            Purchase {
                product_id,
                title,
                image,
                first_ordered_at: events::timestamp(at).to_string(),
            }
        };
        ordered.into_iter().map(purchase).collect()
    }
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

    #[test]
    fn the_first_order_of_a_product_counts_and_decides_its_place() {
        let mut ordered = FirstOrdered::default();
        // 1.1 s is later than 1 s, and its text sorts before it.
        ordered.add(vec![order(1100, &[3, 1]), order(1000, &[2])]);
        ordered.add(vec![order(999, &[1]), order(5000, &[2, 2])]);
        assert_eq!(ordered.chunks(2).len(), 2);
        let purchases = ordered.with(vec![product(3), product(1)]);
        let shown: Vec<_> = purchases
            .iter()
            .map(|one| (one.product_id.as_u128(), one.first_ordered_at.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (1, "1970-01-01T00:00:00.999Z"),
                (2, "1970-01-01T00:00:01Z"),
                (3, "1970-01-01T00:00:01.100Z")
            ]
        );
        assert_eq!(purchases[0].title.as_deref(), Some("Thing 1"));
        assert_eq!(purchases[1].title, None, "of this one nothing was told");
    }

    #[test]
    fn what_was_ordered_in_the_same_moment_is_shown_by_id() {
        let mut ordered = FirstOrdered::default();
        ordered.add(vec![order(7, &[2, 3, 1])]);
        let ids: Vec<u128> = ordered
            .with(Vec::new())
            .iter()
            .map(|one| one.product_id.as_u128())
            .collect();
        assert_eq!(ids, [1, 2, 3]);
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
