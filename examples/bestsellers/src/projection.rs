//! The projection: how often each product was ordered.

use headwater::prelude::*;
use shop_events::{OrdersEvent, ProductsEvent};

/// Counts the order lines of each product.
#[derive(Debug)]
pub struct Bestsellers;

impl Projection for Bestsellers {
    const NAME: &'static str = "bestsellers"; // never rename
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["products", "orders"];
    const EVENTS: &'static [&'static [&'static str]] =
        &[ProductsEvent::SUBJECTS, OrdersEvent::SUBJECTS];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            if &*event.source == OrdersEvent::SOURCE {
                let OrdersEvent::Placed(order) = event.try_into()?;
                for id in &order.product_ids {
                    count_line(tx, shop_events::id(id)?)?;
                }
            } else {
                let (id, title) = match event.try_into()? {
                    ProductsEvent::Created(product) => (product.product_id, product.title),
                    ProductsEvent::Updated(product) => (product.product_id, product.title),
                };
                save_title(tx, shop_events::id(&id)?, &title)?;
            }
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        shop_events::key(event)
    }
}

fn count_line(tx: &Tx, product: Uuid) -> Result<(), DbErr> {
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO bestseller (product, lines) VALUES ({product}, 1)
         ON CONFLICT (product) DO UPDATE SET lines = lines + 1"
    ))
}

fn save_title(tx: &Tx, product: Uuid, title: &str) -> Result<(), DbErr> {
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO bestseller (product, title) VALUES ({product}, {title})
         ON CONFLICT (product) DO UPDATE SET title = excluded.title"
    ))
}

#[cfg(test)]
mod tests {
    use headwater_testkit::{Given, converges, events};
    use shop_events::{OrderPlaced, ProductCreated};

    use super::*;
    use crate::MIGRATIONS;
    use crate::store::{Bestseller, top};

    fn created(product: Uuid) -> ProductCreated {
        ProductCreated {
            product_id: product.to_string(),
            title: "Mug".to_owned(),
            image: "https://example.com/mug.png".to_owned(),
        }
    }

    fn placed(products: &[Uuid]) -> OrderPlaced {
        OrderPlaced {
            order_id: Uuid::from_u128(1).to_string(),
            user_id: Uuid::from_u128(2).to_string(),
            product_ids: products.iter().map(Uuid::to_string).collect(),
            placed_at: None,
        }
    }

    #[tokio::test]
    async fn every_line_of_an_order_counts() {
        let mug = Uuid::from_u128(7);
        let given = Given::events(Bestsellers, MIGRATIONS, events![placed(&[mug, mug])]).await;
        let top = given.then(|snapshot| top(snapshot, 10)).await;
        assert_eq!(top[0].lines, 2);
    }

    #[tokio::test]
    async fn the_order_in_which_sources_come_makes_no_difference() {
        let mug = Uuid::from_u128(7);
        let events = events![created(mug), placed(&[mug]), placed(&[mug, mug])];
        let check = converges(|| Bestsellers, MIGRATIONS, events);
        let title = Some("Mug".to_owned());
        let expected = [Bestseller { title, lines: 3 }];
        assert_eq!(check.then(|tx| top(tx, 10)).await, expected);
    }
}
