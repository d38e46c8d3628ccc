//! What `converges` prints about a projection that depends on the order of its sources; shown in
//! `docs/adding-a-projection.md`.

use example_bestsellers::{Bestsellers, MIGRATIONS};
use headwater::prelude::*;
use headwater_testkit::{converges, events};
use shop_events::{OrderPlaced, ProductCreated};

/// Leaves out orders that come before the first product.
struct Lossy;

impl Projection for Lossy {
    const NAME: &'static str = "lossy";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = Bestsellers::SOURCES;

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        let known = tx.execute_unprepared("UPDATE bestseller SET lines = lines")?;
        if events[0].kind() == OrderPlaced::SUBJECT && known.rows_affected() == 0 {
            return Ok(());
        }
        Bestsellers.apply(tx, events)
    }
}

#[tokio::test]
async fn an_order_that_is_left_out_is_reported() {
    let mug = Uuid::from_u128(7).to_string();
    let placed = OrderPlaced {
        product_ids: vec![mug.clone()],
        ..OrderPlaced::default()
    };
    let created = ProductCreated {
        product_id: mug,
        title: "Mug".to_owned(),
        ..ProductCreated::default()
    };
    let events = events![created, placed, placed];
    let check = converges(|| Lossy, MIGRATIONS, events).seed(7);
    let report = check.report().await.unwrap();
    assert_eq!(report, include_str!("lossy.txt").trim_end());
}
