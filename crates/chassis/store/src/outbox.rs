//! The outbox: a source's append-only event log, in its own database.
//!
//! # What
//!
//! A service that changes its database *and* publishes an event has two systems to write to, and
//! can die in between. So it writes the event into a table of the same database, in the same
//! transaction as the change: both are there or neither is. The relay then moves
//! the table's rows to the source's stream, in order.
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
//! * **It is the truth and is kept.** The stream is a copy that can be lost, rolled back or
//!   purged; the relay fills it again from here, and projections fetch single missing events
//!   from here (`operator`).
//! * **No "published" flag.** A flag would be a second memory of what the stream already knows,
//!   one more write an event, and wrong the moment the stream loses something. The tail of the
//!   stream is the relay's memory.
//! * **Positions have no gaps.** One writer, `AUTOINCREMENT`, and rolled-back numbers are used
//!   again: so whoever reads 7 after 5 knows that 6 is missing, not that it never was.
//! * **Triggers refuse UPDATE and DELETE**, so that a repair by hand cannot silently make the
//!   outbox differ from what was published.

use headwater_event::{Event, MAX_PAYLOAD, event};
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
/// The database's, or that the event is larger than [`MAX_PAYLOAD`] or its key than 1 KiB.
///
/// # Panics
/// When the event's subject does not begin with the database's owner: a service publishes its
/// own events only.
pub fn append<E: Event>(tx: &Tx, event: &E) -> Result<Position, DbErr> {
    let owner = tx.owner();
    assert!(
        E::SUBJECT
            .strip_prefix(owner)
            .is_some_and(|rest| rest.starts_with('.')),
        "{} is not an event of the source {owner}",
        E::SUBJECT
    );
    let payload = event.encode_to_vec();
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
        "{what}{} with {bytes} bytes is above the limit of {max}",
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

/// The events from position `from` on, `limit` of them at most, in order.
///
/// # Errors
/// The database's.
pub fn page(db: &impl ConnectionTrait, from: u64, limit: usize) -> Result<Vec<Row>, DbErr> {
    db.query_all_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        PAGE,
        // Beyond what SQLite can count there is nothing.
        [clamped(from).into(), clamped(limit as u64).into()] as [Value; 2],
    ))?
    .iter()
    .map(row)
    .collect()
}

/// Like [`page`], but only as many events as have `bytes_max` of payload together; one always fits.
///
/// # Errors
/// The database's.
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

/// The position of the newest event; 0 when there is none.
pub fn head(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let row = db
        .query_one_raw(Statement::from_string(db.get_database_backend(), HEAD))?
        .ok_or_else(|| DbErr::RecordNotFound("headwater_outbox".to_owned()))?;
    Ok(unsigned(row.try_get_by("head")?))
}

/// [`head`] in a raw snapshot.
///
/// # Errors
/// The database's.
pub fn raw_head(snapshot: &RawSnapshot) -> Result<u64, DbErr> {
    let head = snapshot.row(HEAD, [], |row| row.get(0))?;
    Ok(head.map_or(0, unsigned))
}

const HEAD: &str = "SELECT coalesce(max(position), 0) AS head FROM headwater_outbox";

/// When the event at `position` was recorded, in milliseconds since 1970; `None` without one.
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
