//! The outbox: a source's append-only event log, in the source's database.
//!
//! # What
//!
//! A service that changes its database *and* publishes an event writes to two systems, and may
//! die in between. So it writes the event into a table of the same database, in the same
//! transaction as the change: both happen or neither does. The relay then publishes the table's
//! rows to the source's stream, in order.
//!
//! ```ignore
//! db.write(move |tx| {
//!     store::insert(tx, &order)?;
//!     outbox::append(tx, &OrderPlaced { .. })?;   // does not compile outside a transaction
//!     Ok(())
//! })
//! ```
//!
//! # Why this way
//!
//! * **It is the source of truth and is kept.** The stream is a copy that can be lost, rolled back
//!   or purged. The relay refills it from the outbox, and projections fetch single missing events
//!   from the outbox (`operator`).
//! * **No "published" flag.** A flag would duplicate what the stream already knows, cost another
//!   write per event, and be wrong as soon as the stream loses an event. The relay takes its state
//!   from the tail of the stream.
//! * **Positions have no holes.** There is one writer, `AUTOINCREMENT`, and rolled-back numbers are
//!   reused. So a reader that gets 7 after 5 knows that 6 exists and is missing.
//! * **Triggers refuse UPDATE and DELETE**, so a manual repair cannot silently make the outbox
//!   differ from what was published.

use std::collections::BTreeMap;

use headwater_event::{Event, MAX_PAYLOAD, Upcast, event, version};
use sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement, Value};

use crate::number::unsigned;
use crate::raw::RawSnapshot;
use crate::transaction::Tx;
pub use headwater_event::{Position, Row};

/// The longest key, in bytes: keys are ids.
const KEY_MAX: usize = 1024;

/// Appends an event to the outbox, in the transaction `tx`.
///
/// # Errors
/// A database error; or the payload exceeds [`MAX_PAYLOAD`] or the key 1 KiB.
///
/// # Panics
/// If the event's subject does not begin with the database's owner: a service publishes only its
/// own events.
pub fn append<E: Event>(tx: &Tx, event: &E) -> Result<Position, DbErr> {
    append_payload(tx, event, event.encode_to_vec())
}

/// Appends one event in two versions, for as long as some readers know only the older one. It has
/// one position, and the older version's subject. Each reader applies it once: as `new` if it knows
/// that version, otherwise as `old`.
///
/// ```
/// # use headwater_event::{Event, Position, Upcast};
/// # use headwater_store::{Tx, outbox};
/// // The old version as the source still makes it, and the new one.
/// fn publish<V1: Event + for<'a> From<&'a V2>, V2: Event + Upcast<V1>>(
///     tx: &Tx,
///     placed: &V2,
/// ) -> Result<Position, sea_orm::DbErr> {
///     outbox::append_both(tx, &V1::from(placed), placed)
/// }
/// ```
///
/// # Errors
/// As [`append`], where both payloads together must not exceed [`MAX_PAYLOAD`]; or the keys differ.
///
/// # Panics
/// As [`append`].
pub fn append_both<Old: Event, New: Event + Upcast<Old>>(
    tx: &Tx,
    old: &Old,
    new: &New,
) -> Result<Position, DbErr> {
    if old.key() != new.key() {
        return Err(DbErr::Custom(format!(
            "the keys of {} and {} differ: `{}` and `{}`",
            Old::SUBJECT,
            New::SUBJECT,
            old.key(),
            new.key()
        )));
    }
    append_payload(tx, old, version::encode_both(old, new))
}

fn append_payload<E: Event>(tx: &Tx, event: &E, payload: Vec<u8>) -> Result<Position, DbErr> {
    let owner = tx.owner();
    assert!(
        E::SUBJECT
            .strip_prefix(owner)
            .is_some_and(|rest| rest.starts_with('.')),
        "{} is not an event of the source {owner}",
        E::SUBJECT
    );
    check_size::<E>("", payload.len(), MAX_PAYLOAD)?;
    check_size::<E>("the key of ", event.key().len(), KEY_MAX)?;
    let row = tx
        .query_one_raw(Statement::from_sql_and_values(
            tx.get_database_backend(),
            "INSERT INTO headwater_outbox (subject, key, payload, traceparent, recorded_at)
             VALUES (?, ?, ?, ?, ?) RETURNING position",
            [
                event::subject_of(event).into(),
                event.key().into(),
                payload.into(),
                tx.traceparent().into(),
                tx.now_ms().into(),
            ] as [Value; 5],
        ))?
        .ok_or(DbErr::RecordNotInserted)?;
    let number = unsigned(row.try_get_by("position")?);
    tx.note_appended(number);
    Ok(position(tx, number))
}

fn check_size<E: Event>(what: &str, bytes: usize, max: usize) -> Result<(), DbErr> {
    if bytes <= max {
        return Ok(());
    }
    Err(DbErr::Custom(format!(
        "{what}{} has {bytes} bytes, which exceeds the limit of {max}",
        E::SUBJECT
    )))
}

/// `position` in the outbox of `tx`'s database.
pub fn position(tx: &Tx, position: u64) -> Position {
    Position {
        source: tx.owner().to_owned(),
        position,
    }
}

/// At most `limit` events from position `from` on, in order.
pub fn page(db: &impl ConnectionTrait, from: u64, limit: usize) -> Result<Vec<Row>, DbErr> {
    db.query_all_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        PAGE,
        // There are no positions beyond SQLite's largest integer.
        [clamped(from).into(), clamped(limit as u64).into()] as [Value; 2],
    ))?
    .iter()
    .map(row)
    .collect()
}

/// [`page`], limited to `bytes_max` of payload in total; the first event always fits.
pub fn page_within(
    snapshot: &RawSnapshot,
    from: u64,
    limit: usize,
    bytes_max: u64,
) -> Result<Vec<Row>, DbErr> {
    let mut bytes = 0;
    snapshot.rows_while(PAGE, [clamped(from), clamped(limit as u64)], |row| {
        let size = row.get_ref("payload")?.as_blob()?.len() as u64;
        let is_first = bytes == 0;
        bytes += size.max(1);
        if bytes > bytes_max && !is_first {
            return Ok(None);
        }
        Ok(Some(Row {
            position: unsigned(row.get("position")?),
            subject: row.get("subject")?,
            key: row.get("key")?,
            payload: row.get("payload")?,
            traceparent: row.get("traceparent")?,
            recorded_at: row.get("recorded_at")?,
        }))
    })
}

const PAGE: &str = "SELECT position, subject, key, payload, traceparent, recorded_at
     FROM headwater_outbox WHERE position >= ? ORDER BY position LIMIT ?";

/// The position of the newest event; 0 if there is none.
pub fn head(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let row = db
        .query_one_raw(Statement::from_string(db.get_database_backend(), HEAD))?
        .ok_or_else(|| DbErr::RecordNotFound("headwater_outbox".to_owned()))?;
    Ok(unsigned(row.try_get_by("head")?))
}

/// [`head`] in a raw snapshot.
pub fn raw_head(snapshot: &RawSnapshot) -> Result<u64, DbErr> {
    let head = snapshot.row(HEAD, [], |row| row.get(0))?;
    Ok(head.map_or(0, unsigned))
}

/// Makes the table of [`inherited`], if it is missing.
pub const INHERITED: &str = include_str!("../migrations/0008_inherited.sql");

/// The former epochs of this database, and the last position up to which it has the events of each:
/// it was restored from copies of them. Empty if it never was.
pub fn inherited(snapshot: &RawSnapshot) -> Result<BTreeMap<String, u64>, DbErr> {
    let sql = "SELECT former, last FROM headwater_inherited";
    let each = snapshot.rows(sql, [], |row| Ok((row.get(0)?, unsigned(row.get(1)?))))?;
    Ok(each.into_iter().collect())
}

const HEAD: &str = "SELECT coalesce(max(position), 0) AS head FROM headwater_outbox";

/// When the event at `position` was appended, in milliseconds since 1970; `None` if there is none.
pub fn recorded_at(db: &impl ConnectionTrait, position: u64) -> Result<Option<i64>, DbErr> {
    let row = db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT recorded_at FROM headwater_outbox WHERE position = ?",
        [clamped(position).into()] as [Value; 1],
    ))?;
    row.map(|row| row.try_get_by("recorded_at")).transpose()
}

fn row(row: &QueryResult) -> Result<Row, DbErr> {
    Ok(Row {
        position: unsigned(row.try_get_by("position")?),
        subject: row.try_get_by("subject")?,
        key: row.try_get_by("key")?,
        payload: row.try_get_by("payload")?,
        traceparent: row.try_get_by("traceparent")?,
        recorded_at: row.try_get_by("recorded_at")?,
    })
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
