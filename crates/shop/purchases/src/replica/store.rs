//! The tables of `purchases.db`.

use std::collections::BTreeMap;

use headwater::database::{Bulk, RawSnapshot, Snapshot, Tx};
use sea_orm::{ConnectionTrait, DbErr, Value, raw_sql};
use uuid::Uuid;

use super::recent;
use crate::purchase::{Again, Cursor, Order, Part, Purchase};

/// The state of a user, from the user's own events. It only increases. The table stores it as a
/// number, where 0 is a user who is known from an order only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum UserState {
    Registered = 1,
    /// Final.
    Erased = 2,
}

/// An order line: a user ordered a product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// The index of the order's user in the batch's shoppers, a different one for each order.
    pub(super) shopper: usize,
    pub(super) product: Uuid,
    /// Milliseconds since 1970.
    pub(super) ordered_at: i64,
}

/// How many of the next sorted ids are compared before a binary search.
const NEAR: usize = 8;

/// The content that is equal in any two stores built from the same events. The numbers are left
/// out: they depend on how the events of the sources interleaved. So is the full-text index, which
/// triggers derive from the titles, and the short list of recent users, which an erasure shortens
/// without bringing back those for whom there was no room.
pub(super) const CONTENT: &[(&str, &str)] = &[
    ("user", "SELECT lower(hex(id)) AS id, state FROM user"),
    (
        "product",
        "SELECT lower(hex(id)) AS id, title, image FROM product",
    ),
    (
        "purchase",
        "SELECT lower(hex(user.id)) AS user, lower(hex(product.id)) AS product, first_ordered_at,
                first_ordered_at + span AS last_ordered_at, times
         FROM purchase
         LEFT JOIN user ON user.number = purchase.user
         LEFT JOIN product ON product.number = purchase.product
         WHERE user.state IS NOT 2",
    ),
];

const RAISE_USERS: Bulk = Bulk {
    before: "INSERT INTO user (id, state) VALUES ",
    row: "(?, ?)",
    after: " ON CONFLICT (id) DO UPDATE SET state = excluded.state WHERE excluded.state > state",
};

const BEGIN_ERASING: Bulk = Bulk {
    before: "INSERT OR IGNORE INTO erasing (user) SELECT number FROM user
             WHERE EXISTS (SELECT 1 FROM purchase WHERE purchase.user = number) AND id IN (",
    row: "?",
    after: ")",
};

const FORGET_RECENT: Bulk = Bulk {
    before: "DELETE FROM recent WHERE user IN (SELECT number FROM user WHERE id IN (",
    row: "?",
    after: "))",
};

/// Raises users to at least these states; each user occurs once.
///
/// The purchases of an erased user are hidden from now on, and [`erase_part`] removes them. The
/// user's row stays: a later order must not bring the user back.
pub(super) fn save_users(tx: &Tx, users: &[(Uuid, UserState)]) -> Result<(), DbErr> {
    let raised = users
        .iter()
        .map(|(id, state)| [(*id).into(), (*state as u8).into()]);
    RAISE_USERS.run(tx, raised)?;
    let erased = users
        .iter()
        .filter(|(_, state)| *state == UserState::Erased);
    let erased: Vec<_> = erased.map(|(id, _)| [(*id).into()]).collect();
    BEGIN_ERASING.run(tx, erased.clone())?;
    FORGET_RECENT.run(tx, erased)
}

/// The most purchases of an erased user that one transaction removes. It takes some 10 ms, so no
/// write waits long.
const ERASED_AT_ONCE: u32 = 2_000;

/// Whether purchases of erased users are still stored.
///
/// # Errors
/// The database's.
pub fn is_erasing(db: &Snapshot) -> Result<bool, DbErr> {
    Ok(erasing(db)?.is_some())
}

/// Removes a part of an erased user's purchases, if there are any.
///
/// # Errors
/// The database's.
pub fn erase_part(tx: &Tx) -> Result<(), DbErr> {
    let Some(user) = erasing(tx)? else {
        return Ok(());
    };
    let removed = tx.execute_raw(raw_sql!(
        Sqlite,
        "DELETE FROM purchase WHERE user = {user} AND product IN
             (SELECT product FROM purchase WHERE user = {user} ORDER BY product
              LIMIT {ERASED_AT_ONCE})"
    ))?;
    if removed.rows_affected() < u64::from(ERASED_AT_ONCE) {
        tx.run_raw(raw_sql!(Sqlite, "DELETE FROM erasing WHERE user = {user}"))?;
    }
    Ok(())
}

/// One of the users who are being erased.
fn erasing(db: &impl ConnectionTrait) -> Result<Option<i64>, DbErr> {
    let row = db.query_one_raw(raw_sql!(Sqlite, "SELECT user FROM erasing LIMIT 1"))?;
    row.map(|row| row.try_get_by_index(0)).transpose()
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

const FIND_USERS: Bulk = Bulk {
    before: "SELECT id, iif(state = 2, NULL, number) FROM (VALUES ",
    row: "(?)",
    after: ") AS sought CROSS JOIN user ON user.id = sought.column1",
};

const MAKE_USERS: Bulk = Bulk {
    before: "INSERT INTO user (id, state) VALUES ",
    row: "(?, 0)",
    after: " RETURNING id, number",
};

const FIND_PRODUCTS: Bulk = Bulk {
    before: "SELECT id, number FROM (VALUES ",
    row: "(?)",
    after: ") AS sought CROSS JOIN product ON product.id = sought.column1",
};

const MAKE_PRODUCTS: Bulk = Bulk {
    before: "INSERT INTO product (id) VALUES ",
    row: "(?)",
    after: " RETURNING id, number",
};

/// The surrogate key of each of `ids`, in their order. Inserts rows for new ids. `None` for an
/// erased user.
///
/// A UUID lookup costs several integer lookups, and ids repeat across orders, so each is looked up
/// once, in the order of the index.
fn surrogate_keys(
    tx: &Tx,
    ids: impl Iterator<Item = Uuid>,
    find: &Bulk,
    make: &Bulk,
) -> Result<Vec<Option<i64>>, DbErr> {
    let mut wanted: Vec<(Uuid, usize)> = ids.zip(0..).collect();
    wanted.sort_unstable_by_key(|(id, _)| id.as_u128());
    let mut lookup = IdLookup::new(wanted.iter().map(|(id, _)| *id));
    lookup.run(tx, find)?;
    lookup.run(tx, make)?;
    let mut keys = vec![None; wanted.len()];
    let mut at = 0;
    for (id, place) in wanted {
        at = lookup.index_of(id, at);
        if let Found::Key(key) = lookup.found[at] {
            keys[place] = Some(key);
        }
    }
    Ok(keys)
}

/// Looks up the keys of sorted ids. It needs no hash map: ids and rows come in the same order.
struct IdLookup {
    ids: Vec<Uuid>,
    found: Vec<Found>,
}

/// The result of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    NotYet,
    /// A user who was erased.
    Erased,
    Key(i64),
}

impl IdLookup {
    /// `ids` are sorted, and may repeat.
    fn new(ids: impl Iterator<Item = Uuid>) -> Self {
        let mut ids: Vec<Uuid> = ids.collect();
        ids.dedup();
        let found = vec![Found::NotYet; ids.len()];
        Self { ids, found }
    }

    /// Looks up all ids that have not been found yet.
    fn run(&mut self, tx: &Tx, statement: &Bulk) -> Result<(), DbErr> {
        let missing = self.ids.iter().zip(&self.found);
        let missing = missing.filter(|(_, found)| **found == Found::NotYet);
        let missing: Vec<[Value; 1]> = missing.map(|(id, _)| [(*id).into()]).collect();
        let mut at = 0;
        statement.query(tx, missing, |row| {
            at = self.index_of(row.try_get_by(0)?, at);
            let key: Option<i64> = row.try_get_by(1)?;
            self.found[at] = key.map_or(Found::Erased, Found::Key);
            Ok(())
        })
    }

    /// The index of `id`: most often `at`, the index of the previous id, or soon after it.
    fn index_of(&self, id: Uuid, at: usize) -> usize {
        let near = self.ids[at..]
            .iter()
            .take(NEAR)
            .position(|next| *next == id);
        match near {
            Some(offset) => at + offset,
            None => self.ids.binary_search(&id).expect("an id of this lookup"),
        }
    }
}

const SAVE_PURCHASES: Bulk = Bulk {
    before: "INSERT INTO purchase (user, product, first_ordered_at, span, times) VALUES ",
    row: "(?, ?, ?, ?, ?)",
    after: " ON CONFLICT DO UPDATE SET
             first_ordered_at = min(first_ordered_at, excluded.first_ordered_at),
             span = max(first_ordered_at + span, excluded.first_ordered_at + excluded.span)
                 - min(first_ordered_at, excluded.first_ordered_at),
             times = times + excluded.times",
};

/// The orders of a product by a user, in a batch.
#[derive(Debug, Clone, Copy)]
struct Ordered {
    user: i64,
    product: i64,
    first_at: i64,
    last_at: i64,
    times: i64,
}

/// Saves `shoppers` and their order `lines`, except those of erased users. Each purchase keeps its
/// earliest and its latest time and the number of its orders, in whichever order the events come.
pub(super) fn save_purchases(tx: &Tx, shoppers: &[Uuid], lines: &[Line]) -> Result<(), DbErr> {
    let shoppers = shoppers.iter().copied();
    let users = surrogate_keys(tx, shoppers, &FIND_USERS, &MAKE_USERS)?;
    let ordered = lines.iter().map(|line| line.product);
    let products = surrogate_keys(tx, ordered, &FIND_PRODUCTS, &MAKE_PRODUCTS)?;
    let row = |(line, product): (&Line, Option<i64>)| {
        Some((
            users[line.shopper]?,
            product?,
            line.shopper,
            line.ordered_at,
        ))
    };
    let lines = lines.iter().zip(products);
    let mut rows: Vec<(i64, i64, usize, i64)> = lines.filter_map(row).collect();
    rows.sort_unstable();
    // An order that has a product twice counts once.
    rows.dedup_by_key(|(user, product, shopper, _)| (*user, *product, *shopper));
    let mut purchases: Vec<Ordered> = Vec::with_capacity(rows.len());
    for (user, product, _, at) in rows {
        match purchases.last_mut() {
            Some(last) if (last.user, last.product) == (user, product) => {
                last.first_at = last.first_at.min(at);
                last.last_at = last.last_at.max(at);
                last.times += 1;
            }
            _ => purchases.push(Ordered {
                user,
                product,
                first_at: at,
                last_at: at,
                times: 1,
            }),
        }
    }
    let values = purchases.iter().map(|it| {
        let span = it.last_at.saturating_sub(it.first_at);
        [it.user, it.product, it.first_at, span, it.times].map(Value::from)
    });
    SAVE_PURCHASES.run(tx, values)?;
    recent::save(tx, purchases.iter().map(|it| (it.user, it.last_at)))
}

/// The purchases of a user after a cursor, in the order of [`Cursor`].
///
/// The query scans all purchases of the user and keeps a page of them. An index by time would make
/// a page cheap for a user with a million purchases (0.2 s without it), but every purchase of every
/// user twice as large and half as slow again to apply.
const OLDEST_FIRST: &str = "SELECT first_ordered_at, product.id, title, image, span, times
     FROM purchase JOIN product ON product.number = purchase.product
     WHERE user = ?1 AND first_ordered_at >= ?2 AND (first_ordered_at, product.id) > (?2, ?3)
     ORDER BY first_ordered_at, product.id LIMIT ?4";

/// [`OLDEST_FIRST`] in the opposite order.
const NEWEST_FIRST: &str = "SELECT first_ordered_at, product.id, title, image, span, times
     FROM purchase JOIN product ON product.number = purchase.product
     WHERE user = ?1 AND first_ordered_at <= ?2 AND (first_ordered_at, product.id) < (?2, ?3)
     ORDER BY first_ordered_at DESC, product.id DESC LIMIT ?4";

/// The number of a user; `None` if there is no such user.
pub(super) fn number_of(snapshot: &RawSnapshot, user: Uuid) -> Result<Option<i64>, DbErr> {
    snapshot.row(
        "SELECT number FROM user WHERE id = ? AND state <> ?",
        (user.as_bytes(), UserState::Erased as u8),
        |row| row.get(0),
    )
}

/// The first product of [`NEWEST_FIRST`].
pub(super) fn newest(snapshot: &RawSnapshot, user: i64) -> Result<Option<Uuid>, DbErr> {
    snapshot.row(
        "SELECT product.id FROM purchase CROSS JOIN product ON product.number = purchase.product
         WHERE user = ?1 AND first_ordered_at =
             (SELECT max(first_ordered_at) FROM purchase WHERE user = ?1)
         ORDER BY product.id DESC LIMIT 1",
        [user],
        |row| row.get(0).map(Uuid::from_bytes),
    )
}

/// A part of what the user ordered, and one purchase more than its limit, to see whether there are
/// more.
pub(super) fn purchases(
    snapshot: &RawSnapshot,
    user: i64,
    part: Part,
) -> Result<Vec<(Cursor, Purchase)>, DbErr> {
    // The empty id sorts before all ids, an id with an extra byte after them.
    let (sql, beginning) = match part.order {
        Order::OldestFirst => (OLDEST_FIRST, (i64::MIN, Vec::new())),
        Order::NewestFirst => (NEWEST_FIRST, (i64::MAX, vec![0xff; 17])),
    };
    let place = |from: Cursor| (from.first_ordered_at, from.product_id.as_bytes().to_vec());
    let (time, id) = part.from.map_or(beginning, place);
    snapshot.rows(sql, (user, time, id, part.limit + 1), |row| {
        let place = Cursor {
            first_ordered_at: row.get(0)?,
            product_id: Uuid::from_bytes(row.get(1)?),
        };
        let (title, image): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        let again = Again {
            span: row.get(4)?,
            times: row.get(5)?,
        };
        Ok((place, Purchase::new(place, again, title.zip(image))))
    })
}
