//! The tables of `purchases.db`.

use std::collections::{BTreeMap, BTreeSet};

use headwater::database::{BareSnapshot, Bulk, Tx};
use sea_orm::{ConnectionTrait, DbErr, FromQueryResult, Statement, Value};
use uuid::Uuid;

use super::{Purchase, Shopper};

/// What is known of a user; a later one of these is never undone. As numbers in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum UserState {
    /// By an order only.
    HeardOf = 0,
    Registered = 1,
    /// For ever.
    Erased = 2,
}

/// That a user ordered a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) user: Uuid,
    pub(super) product: Uuid,
    /// Milliseconds since 1970.
    pub(super) ordered_at: i64,
}

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

const HEAR_OF_USERS: Bulk = Bulk {
    before: "INSERT INTO user (id, state) VALUES ",
    row: "(?, 0)",
    after: " ON CONFLICT DO NOTHING",
};

const RAISE_USERS: Bulk = Bulk {
    before: "INSERT INTO user (id, state) VALUES ",
    row: "(?, ?)",
    after: " ON CONFLICT (id) DO UPDATE SET state = excluded.state WHERE excluded.state > state",
};

const FORGET_PURCHASES: Bulk = Bulk {
    before: "DELETE FROM purchase WHERE user IN (SELECT number FROM user WHERE id IN (",
    row: "?",
    after: "))",
};

/// Notes that users are in these states at least; each comes once.
///
/// What an erased user ordered is taken out, and that there was one stays: an order of theirs
/// that comes later must not bring them back.
pub(super) fn save_users(tx: &Tx, users: &[(Uuid, UserState)]) -> Result<(), DbErr> {
    let (mut heard_of, mut raised, mut erased) = (Vec::new(), Vec::new(), Vec::new());
    for (id, state) in users {
        match state {
            UserState::HeardOf => heard_of.push([(*id).into()]),
            UserState::Registered => raised.push([(*id).into(), (*state as u8).into()]),
            UserState::Erased => {
                raised.push([(*id).into(), (*state as u8).into()]);
                erased.push([(*id).into()]);
            }
        }
    }
    HEAR_OF_USERS.run(tx, heard_of)?;
    RAISE_USERS.run(tx, raised)?;
    FORGET_PURCHASES.run(tx, erased)
}

const SAVE_PRODUCTS: Bulk = Bulk {
    before: "INSERT INTO product (id, title, image) VALUES ",
    row: "(?, ?, ?)",
    after: " ON CONFLICT (id) DO UPDATE SET title = excluded.title, image = excluded.image",
};

/// Saves titles and images.
pub(super) fn save_products(
    tx: &Tx,
    products: BTreeMap<Uuid, (String, String)>,
) -> Result<(), DbErr> {
    let rows = products
        .into_iter()
        .map(|(id, (title, image))| [id.into(), title.into(), image.into()]);
    SAVE_PRODUCTS.run(tx, rows)
}

const HEAR_OF_PRODUCTS: Bulk = Bulk {
    before: "INSERT INTO product (id) VALUES ",
    row: "(?)",
    after: " ON CONFLICT DO NOTHING",
};

const SAVE_PURCHASES: Bulk = Bulk {
    before: "INSERT INTO purchase (user, product, first_ordered_at)
             SELECT user.number, product.number, line.column3 FROM (VALUES ",
    row: "(?, ?, ?)",
    after: ") AS line
             CROSS JOIN user ON user.id = line.column1 AND user.state <> 2
             CROSS JOIN product ON product.id = line.column2
             WHERE true
             ON CONFLICT DO UPDATE SET first_ordered_at = excluded.first_ordered_at
             WHERE excluded.first_ordered_at < first_ordered_at",
};

/// Notes what users ordered who are known and not erased, in lines that are sorted and of which
/// each comes once. Of several times the first counts, whichever comes first.
pub(super) fn save_purchases(tx: &Tx, lines: &[Line]) -> Result<(), DbErr> {
    let products: BTreeSet<Uuid> = lines.iter().map(|line| line.product).collect();
    HEAR_OF_PRODUCTS.run(tx, products.iter().map(|id| [(*id).into()]))?;
    let row = |line: &Line| {
        [
            line.user.into(),
            line.product.into(),
            line.ordered_at.into(),
        ]
    };
    SAVE_PURCHASES.run(tx, lines.iter().map(row))
}

/// What the user ordered, those ordered first first; `None` if there is no such user.
pub(super) fn purchases(
    snapshot: &BareSnapshot,
    user: Uuid,
) -> Result<Option<Vec<Purchase>>, DbErr> {
    let number: Option<i64> = snapshot.row(
        "SELECT number FROM user WHERE id = ? AND state <> ?",
        (user.as_bytes(), UserState::Erased as u8),
        |row| row.get(0),
    )?;
    let Some(number) = number else {
        return Ok(None);
    };
    let purchases = snapshot.rows(
        "SELECT product.id, title, image, first_ordered_at
         FROM purchase JOIN product ON product.number = purchase.product
         WHERE user = ? ORDER BY first_ordered_at, product.id",
        [number],
        |row| {
            Ok(Purchase {
                product_id: Uuid::from_bytes(row.get(0)?),
                title: row.get(1)?,
                image: row.get(2)?,
                first_ordered_at: events::timestamp(row.get(3)?).to_string(),
            })
        },
    )?;
    Ok(Some(purchases))
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
        [(UserState::Erased as u8).into(), limit.into()],
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
