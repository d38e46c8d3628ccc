//! The tables of `purchases.db`.

use headwater::database::Tx;
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use uuid::Uuid;

use super::{Purchase, Shopper};

// The states of a user; see the migration.
const HEARD_OF: i32 = 0;
const REGISTERED: i32 = 1;
const ERASED: i32 = 2;

/// What two folds of the same events have in common; the numbers depend on the order in which
/// the sources came.
pub(super) const CONTENT: &[(&str, &str)] = &[
    ("user", "SELECT lower(hex(id)) AS id, state FROM user"),
    (
        "product",
        "SELECT lower(hex(id)) AS id, title, image FROM product",
    ),
    (
        "purchase",
        "SELECT lower(hex(user.id)) AS user, lower(hex(product.id)) AS product, first_ordered_at
         FROM purchase
         LEFT JOIN user ON user.number = purchase.user
         LEFT JOIN product ON product.number = purchase.product",
    ),
];

/// Notes that the user registered, unless they were erased.
pub(super) fn register_user(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    run(
        tx,
        "INSERT INTO user (id, state) VALUES (?, ?)
         ON CONFLICT (id) DO UPDATE SET state = max(state, excluded.state)",
        [id.into(), REGISTERED.into()],
    )
}

/// Takes out what the user ordered, and leaves that there was one: an order of theirs that comes
/// later must not bring them back.
pub(super) fn erase_user(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    run(
        tx,
        "INSERT INTO user (id, state) VALUES (?, ?)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state",
        [id.into(), ERASED.into()],
    )?;
    run(
        tx,
        "DELETE FROM purchase WHERE user = (SELECT number FROM user WHERE id = ?)",
        [id.into()],
    )
}

pub(super) fn save_product(tx: &Tx, id: Uuid, title: String, image: String) -> Result<(), DbErr> {
    run(
        tx,
        "INSERT INTO product (id, title, image) VALUES (?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET title = excluded.title, image = excluded.image",
        [id.into(), title.into(), image.into()],
    )
}

/// The number of a user who ordered, heard of before or not; `None` if they were erased.
pub(super) fn shopper_number(tx: &Tx, id: Uuid) -> Result<Option<i64>, DbErr> {
    let row = tx
        .query_one_raw(statement(
            tx,
            "INSERT INTO user (id, state) VALUES (?, ?)
             ON CONFLICT (id) DO UPDATE SET state = state RETURNING number, state",
            [id.into(), HEARD_OF.into()],
        ))?
        .ok_or(DbErr::RecordNotInserted)?;
    let state: i32 = row.try_get_by("state")?;
    let number = row.try_get_by("number")?;
    Ok((state != ERASED).then_some(number))
}

/// The number of a product, heard of before or not.
pub(super) fn product_number(tx: &Tx, id: Uuid) -> Result<i64, DbErr> {
    let row = tx
        .query_one_raw(statement(
            tx,
            "INSERT INTO product (id) VALUES (?)
             ON CONFLICT (id) DO UPDATE SET id = id RETURNING number",
            [id.into()],
        ))?
        .ok_or(DbErr::RecordNotInserted)?;
    row.try_get_by("number")
}

/// Notes that `user` ordered `product`; of several times the first counts, whichever comes first.
pub(super) fn save_purchase(tx: &Tx, user: i64, product: i64, at_ms: i64) -> Result<(), DbErr> {
    run(
        tx,
        "INSERT INTO purchase (user, product, first_ordered_at) VALUES (?, ?, ?)
         ON CONFLICT DO UPDATE
         SET first_ordered_at = min(first_ordered_at, excluded.first_ordered_at)",
        [user.into(), product.into(), at_ms.into()],
    )
}

#[derive(FromQueryResult)]
struct PurchaseRow {
    id: Uuid,
    title: Option<String>,
    image: Option<String>,
    first_ordered_at: i64,
}

/// What the user ordered, those ordered first first; `None` if there is no such user.
pub(super) fn purchases(
    db: &impl ConnectionTrait,
    user: Uuid,
) -> Result<Option<Vec<Purchase>>, DbErr> {
    let row = db.query_one_raw(statement(
        db,
        "SELECT number FROM user WHERE id = ? AND state <> ?",
        [user.into(), ERASED.into()],
    ))?;
    let Some(row) = row else { return Ok(None) };
    let number: i64 = row.try_get_by("number")?;
    let rows = PurchaseRow::find_by_statement(statement(
        db,
        "SELECT product.id, title, image, first_ordered_at
         FROM purchase JOIN product ON product.number = purchase.product
         WHERE user = ? ORDER BY first_ordered_at, product.id",
        [number.into()],
    ))
    .all(db)?;
    Ok(Some(rows.into_iter().map(Purchase::from).collect()))
}

impl From<PurchaseRow> for Purchase {
    fn from(row: PurchaseRow) -> Self {
        Self {
            product_id: row.id,
            title: row.title,
            image: row.image,
            first_ordered_at: events::timestamp(row.first_ordered_at).to_string(),
        }
    }
}

#[derive(FromQueryResult)]
struct ShopperRow {
    id: Uuid,
    products: i64,
}

/// The users heard of last.
pub(super) fn shoppers(db: &impl ConnectionTrait, limit: u32) -> Result<Vec<Shopper>, DbErr> {
    let rows = ShopperRow::find_by_statement(statement(
        db,
        "SELECT id, (SELECT count(*) FROM purchase WHERE user = number) AS products
         FROM user WHERE state <> ? ORDER BY number DESC LIMIT ?",
        [ERASED.into(), limit.into()],
    ))
    .all(db)?;
    Ok(rows
        .into_iter()
        .map(|ShopperRow { id, products }| Shopper { id, products })
        .collect())
}

fn statement<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

fn run<const N: usize>(tx: &Tx, sql: &str, values: [Value; N]) -> Result<(), DbErr> {
    tx.run_raw(statement(tx, sql, values))
}
