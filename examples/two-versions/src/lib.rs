//! Two versions of an event, and a projection that names only the newer one.

use headwater::database::Tx;
use headwater::outbox::{self, Position};
use headwater::{ApplyError, Envelope, Projection, Upcast};
use sea_orm::{ConnectionTrait as _, DbErr, Statement, Value};
use shop::orders::v1;

headwater::include_events!(); // `OrderPlaced` is the newest version, `v1::OrderPlaced` the older

impl Upcast<v1::OrderPlaced> for OrderPlaced {
    fn upcast(old: v1::OrderPlaced) -> Self {
        let quantity = 1;
        let products = old.product_ids.into_iter();
        let lines = products.map(|product_id| Line {
            product_id,
            quantity,
        });
        Self {
            order_id: old.order_id,
            buyer_id: old.user_id,
            lines: lines.collect(),
        }
    }
}

/// Appends an order for as long as some readers know only the first version: one event, in both.
pub fn append_both(tx: &Tx, new: &OrderPlaced) -> Result<Position, DbErr> {
    let pieces = |line: &Line| vec![line.product_id.clone(); line.quantity as usize];
    let old = v1::OrderPlaced {
        order_id: new.order_id.clone(),
        user_id: new.buyer_id.clone(),
        product_ids: new.lines.iter().flat_map(pieces).collect(),
    };
    outbox::append_both(tx, &old, new)
}

/// Counts how often each product was ordered.
#[derive(Debug)]
pub struct Sold;

impl Projection for Sold {
    const NAME: &'static str = "sold"; // never rename
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &[OrdersEvent::SOURCE];
    const EVENTS: &'static [&'static [&'static str]] = &[OrdersEvent::SUBJECTS];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let OrdersEvent::Placed(order) = event.try_into()?;
            for line in order.lines {
                let sql = "INSERT INTO sold (product, quantity) VALUES (?, ?)
                    ON CONFLICT (product) DO UPDATE SET quantity = quantity + excluded.quantity";
                let values: [Value; 2] = [line.product_id.into(), line.quantity.into()];
                let backend = tx.get_database_backend();
                tx.execute_raw(Statement::from_sql_and_values(backend, sql, values))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use headwater::Clock;
    use headwater::database::Migration;
    use headwater_testkit::{Store, converges, envelope, recorded};

    use super::*;

    #[tokio::test]
    async fn old_and_new_events_are_one_history() {
        const TABLE: &str = "CREATE TABLE sold (product TEXT PRIMARY KEY, quantity INTEGER)";
        const MIGRATIONS: &[Migration] = &[Migration::sql("0001_sold", TABLE)];
        let product_ids = vec!["mug".to_owned(); 2];
        let old = v1::OrderPlaced {
            product_ids,
            ..Default::default()
        };
        let mut new = OrderPlaced::upcast(old.clone());
        new.lines[0].quantity = 9;
        let store = Store::open("orders", &[], Clock::system()).await;
        let order = new.clone();
        let (_, both) = recorded(&store.db, move |tx| append_both(tx, &order)).await;
        assert_eq!(both.len(), 1, "two versions, one event");
        let events = [vec![envelope(&old)], both, vec![envelope(&new)]].concat();
        let sold = converges(|| Sold, MIGRATIONS, events).then(|tx| {
            let sql = "SELECT quantity FROM sold WHERE product = 'mug'";
            let row = tx.query_one_raw(Statement::from_string(tx.get_database_backend(), sql))?;
            row.expect("a row").try_get_by::<u32, _>(0)
        });
        assert_eq!(sold.await, 2 + 10 + 10);
        headwater_testkit::golden("golden", &SCHEMA, key);
    }
}
