//! The tables of `orders.db`.

use std::collections::HashMap;

use headwater::database::{Bulk, Snapshot, Tx};
use headwater::{idempotency, outbox};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, raw_sql};
use uuid::Uuid;

use crate::order::{Known, Order, PlaceOrder};

/// A row of `placed_order`.
#[derive(Debug, FromQueryResult)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) placed_at: i64,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) position: i64,
}

/// A row of `order_line`.
#[derive(FromQueryResult)]
struct Line {
    order_id: Uuid,
    product_id: Uuid,
}

/// Which of the request's ids are known.
pub(crate) fn known(db: &impl ConnectionTrait, request: &PlaceOrder) -> Result<Known, DbErr> {
    let user = db.query_one_raw(raw_sql!(
        Sqlite,
        "SELECT 1 FROM known_user WHERE id = {request.user_id} AND NOT erased"
    ))?;
    let products = db.query_all_raw(raw_sql!(
        Sqlite,
        "SELECT id FROM known_product WHERE id IN ({..request.product_ids}) ORDER BY id"
    ))?;
    let products = products.iter().map(|row| row.try_get_by_index(0));
    Ok(Known {
        user: user.is_some(),
        products: products.collect::<Result<_, _>>()?,
    })
}

/// A stored order, even if its user was erased.
pub(crate) fn find(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Row>, DbErr> {
    Row::find_by_statement(raw_sql!(
        Sqlite,
        "SELECT * FROM placed_order WHERE id = {id}"
    ))
    .one(db)
}

/// `order` unless its user was erased.
pub(crate) fn shown(db: &impl ConnectionTrait, order: Option<Row>) -> Result<Option<Row>, DbErr> {
    match order {
        Some(order) if !is_erased(db, order.user_id)? => Ok(Some(order)),
        _ => Ok(None),
    }
}

pub(crate) fn page_of_user(
    db: &impl ConnectionTrait,
    user: Uuid,
    start_after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Order>, DbErr> {
    if is_erased(db, user)? {
        return Ok(Vec::new());
    }
    // The empty id sorts before all ids.
    let start_after = start_after.map_or(Vec::new(), |id| id.into_bytes().to_vec());
    let limit = limit as u64;
    let rows = Row::find_by_statement(raw_sql!(
        Sqlite,
        "SELECT * FROM placed_order WHERE user_id = {user} AND id > {start_after}
         ORDER BY id LIMIT {limit}"
    ));
    with_lines(db, rows.all(db)?)
}

/// The orders of `rows`, each with its lines, in the same order.
pub(crate) fn with_lines(db: &impl ConnectionTrait, rows: Vec<Row>) -> Result<Vec<Order>, DbErr> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let found = Line::find_by_statement(raw_sql!(
        Sqlite,
        "SELECT order_id, product_id FROM order_line WHERE order_id IN ({..ids})
         ORDER BY order_id, line"
    ));
    let mut lines: HashMap<Uuid, Vec<Uuid>> = HashMap::new();
    for Line {
        order_id,
        product_id,
    } in found.all(db)?
    {
        lines.entry(order_id).or_default().push(product_id);
    }
    let order = |row: Row| Order {
        id: row.id,
        user_id: row.user_id,
        product_ids: lines.remove(&row.id).unwrap_or_default(),
        placed_at: row.placed_at,
    };
    Ok(rows.into_iter().map(order).collect())
}

const INSERT_LINES: Bulk = Bulk {
    before: "INSERT INTO order_line (order_id, line, product_id) VALUES ",
    row: "(?, ?, ?)",
    after: "",
};

pub(crate) fn insert(
    tx: &Tx,
    order: &Order,
    fingerprint: &[u8],
    position: u64,
) -> Result<(), DbErr> {
    let position = outbox::signed(position);
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO placed_order (id, user_id, placed_at, fingerprint, position)
         VALUES ({order.id}, {order.user_id}, {order.placed_at}, {fingerprint}, {position})"
    ))?;
    let lines = order.product_ids.iter().enumerate();
    let row = |(line, product): (usize, &Uuid)| {
        [order.id.into(), (line as u64).into(), (*product).into()]
    };
    INSERT_LINES.run(tx, lines.map(row))
}

/// An erased user stays erased: a repeated registration changes nothing.
pub(crate) fn learn_user(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT OR IGNORE INTO known_user (id, erased) VALUES ({id}, FALSE)"
    ))
}

pub(crate) fn learn_product(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT OR IGNORE INTO known_product (id) VALUES ({id})"
    ))
}

/// Whether the user was erased.
pub(crate) fn is_erased(db: &impl ConnectionTrait, id: Uuid) -> Result<bool, DbErr> {
    let row = db.query_one_raw(raw_sql!(
        Sqlite,
        "SELECT 1 FROM known_user WHERE id = {id} AND erased"
    ))?;
    Ok(row.is_some())
}

/// Records that the user was erased: from now on their orders are hidden, and [`erase_part`]
/// removes them.
pub(crate) fn forget_user(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT INTO known_user (id, erased) VALUES ({id}, TRUE)
         ON CONFLICT DO UPDATE SET erased = TRUE"
    ))?;
    tx.run_raw(raw_sql!(
        Sqlite,
        "INSERT OR IGNORE INTO erasing (user_id) VALUES ({id})"
    ))
}

/// The most orders and order lines of an erased user that one transaction removes. It takes some
/// 10 ms, so no write waits long. One order always fits.
const ERASED_AT_ONCE: u32 = 100;
const LINES_ERASED_AT_ONCE: i64 = 1_000;

/// Whether orders of erased users are still stored.
pub(crate) fn is_erasing(db: &Snapshot) -> Result<bool, DbErr> {
    Ok(erasing(db)?.is_some())
}

/// Removes a part of an erased user's orders, with their lines and the answers that are kept for
/// repeated requests. It takes a few statements, whatever the number of orders.
pub(crate) fn erase_part(tx: &Tx) -> Result<(), DbErr> {
    let Some(user) = erasing(tx)? else {
        return Ok(());
    };
    let (orders_max, lines_max) = (ERASED_AT_ONCE, LINES_ERASED_AT_ONCE);
    let removed = tx.query_all_raw(raw_sql!(
        Sqlite,
        "DELETE FROM placed_order WHERE id IN (
             SELECT id FROM (
                 SELECT id, row_number() OVER up_to AS orders, sum(lines) OVER up_to AS lines
                 FROM (SELECT id, (SELECT count(*) FROM order_line WHERE order_id = id) AS lines
                       FROM placed_order WHERE user_id = {user} ORDER BY id LIMIT {orders_max})
                 WINDOW up_to AS (ORDER BY id))
             WHERE orders = 1 OR lines <= {lines_max})
         RETURNING id"
    ))?;
    if removed.is_empty() {
        return tx.run_raw(raw_sql!(
            Sqlite,
            "DELETE FROM erasing WHERE user_id = {user}"
        ));
    }
    let ids = removed.iter().map(|row| row.try_get_by_index::<Uuid>(0));
    let ids: Vec<Uuid> = ids.collect::<Result<_, _>>()?;
    idempotency::forget(tx, ids.iter().map(Uuid::to_string))
}

/// One of the users who are being erased.
fn erasing(db: &impl ConnectionTrait) -> Result<Option<Uuid>, DbErr> {
    let row = db.query_one_raw(raw_sql!(Sqlite, "SELECT user_id FROM erasing LIMIT 1"))?;
    row.map(|row| row.try_get_by_index(0)).transpose()
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;
    use headwater::Envelope;
    use headwater::http::{Answer, Problem};
    use headwater::idempotency::{Fingerprint, Key};
    use headwater_testkit::{Store, TestClock, events, recorded};
    use shop_events::OrderPlaced;

    use super::*;
    use crate::{MIGRATIONS, NAME, save};

    /// When all orders are placed.
    const NOW: &str = "2026-11-22T11:00:00Z";

    struct Shop(Store);

    impl Shop {
        /// A database that knows these users and [`PRODUCT`].
        async fn of(users: &'static [Uuid]) -> Self {
            let store = Store::open(NAME, MIGRATIONS, TestClock::at(NOW).clock()).await;
            let learned = store.db.write(|tx| {
                learn_product(tx, PRODUCT)?;
                users.iter().try_for_each(|user| learn_user(tx, *user))
            });
            learned.await.unwrap();
            Self(store)
        }

        /// Places the order `number` of a user, with its own key. Also returns the events that
        /// this appends.
        async fn order(
            &self,
            user: Uuid,
            number: u128,
        ) -> (Result<Answer, Problem>, Vec<Envelope>) {
            let request = PlaceOrder {
                id: Some(Uuid::from_u128(number)),
                user_id: user,
                product_ids: vec![PRODUCT; 20],
            };
            let key = Key {
                scope: "POST /orders",
                text: Some(format!("order {number}")),
            };
            let fingerprint = Fingerprint::of(&request);
            let id = Uuid::from_u128(number);
            recorded(&self.0.db, move |tx| {
                save(tx, &key, &fingerprint, id, &request)
            })
            .await
        }

        async fn page(&self, user: Uuid) -> usize {
            let read = move |snapshot: &_| page_of_user(snapshot, user, None, 500);
            self.0.db.read(read).await.unwrap().len()
        }

        async fn is_shown(&self, number: u128) -> bool {
            let read = move |snapshot: &_| {
                let found = find(snapshot, Uuid::from_u128(number))?;
                Ok::<_, DbErr>(shown(snapshot, found)?.is_some())
            };
            self.0.db.read(read).await.unwrap()
        }

        /// The numbers of orders, order lines, and kept answers.
        async fn stored(&self) -> [i64; 3] {
            let count = |snapshot: &Snapshot| {
                let row = snapshot.query_one_raw(raw_sql!(
                    Sqlite,
                    "SELECT (SELECT count(*) FROM placed_order),
                            (SELECT count(*) FROM order_line),
                            (SELECT count(answer) FROM headwater_idempotency)"
                ))?;
                let row = row.expect("a row of counts");
                Ok::<_, DbErr>([
                    row.try_get_by_index(0)?,
                    row.try_get_by_index(1)?,
                    row.try_get_by_index(2)?,
                ])
            };
            self.0.db.read(count).await.unwrap()
        }
    }

    const PRODUCT: Uuid = Uuid::from_u128(1);
    const ADA: Uuid = Uuid::from_u128(1);
    const BOB: Uuid = Uuid::from_u128(2);

    #[tokio::test]
    async fn an_order_appends_its_event_and_a_repeated_or_refused_request_none() {
        let shop = Shop::of(&[ADA]).await;
        let (answer, appended) = shop.order(ADA, 7).await;
        answer.unwrap();
        let placed = OrderPlaced {
            order_id: Uuid::from_u128(7).to_string(),
            user_id: ADA.to_string(),
            product_ids: vec![PRODUCT.to_string(); 20],
            placed_at: Some(NOW.parse().unwrap()),
        };
        assert_eq!(appended, events![placed]);

        let (repeated, appended) = shop.order(ADA, 7).await;
        assert!(repeated.is_ok() && appended.is_empty(), "{appended:?}");
        let (unknown, appended) = shop.order(BOB, 8).await;
        assert!(unknown.is_err() && appended.is_empty(), "{appended:?}");
    }

    #[tokio::test]
    async fn an_erased_users_orders_are_hidden_at_once_and_removed_in_parts() {
        let mut shop = Shop::of(&[ADA, BOB]).await;
        for number in 1..=250 {
            shop.order(ADA, number).await.0.unwrap();
        }
        shop.order(BOB, 1_000).await.0.unwrap();
        shop.0.db.write(|tx| forget_user(tx, ADA)).await.unwrap();

        assert_eq!(
            shop.stored().await,
            [251, 251 * 20, 251],
            "nothing is removed yet"
        );
        assert_eq!((shop.page(ADA).await, shop.page(BOB).await), (0, 1));
        assert!(!shop.is_shown(1).await && shop.is_shown(1_000).await);
        let repeated = shop.order(ADA, 1).await.0.unwrap_err();
        assert_eq!(repeated.into_response().status(), StatusCode::GONE);

        let mut parts = 0;
        while shop.0.db.read(is_erasing).await.unwrap() {
            let [before, ..] = shop.stored().await;
            shop.0.db.write(erase_part).await.unwrap();
            let [after, ..] = shop.stored().await;
            assert!(
                before - after <= LINES_ERASED_AT_ONCE / 20,
                "{before} {after}"
            );
            parts += 1;
            shop.0.reopen().await;
        }
        assert_eq!(parts, 6, "five with orders, and one that finds none");
        assert_eq!(shop.stored().await, [1, 20, 1]);
        let repeated = shop.order(ADA, 1).await.0.unwrap_err();
        assert_eq!(repeated.into_response().status(), StatusCode::GONE);
    }
}
