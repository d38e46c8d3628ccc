//! Creates dead letters, and finds which events wait behind them.

use std::collections::HashSet;

use headwater_event::{Envelope, EventId};
use headwater_store::Tx;
use headwater_store::number::{signed, unsigned};
use sea_orm::{ConnectionTrait, DbErr};

use crate::dead_letter::sql::{counted, statement};

/// Why an event becomes a dead letter.
#[derive(Debug)]
pub struct NewLetter<'a> {
    pub(crate) blocked_key: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) waiting: bool,
}

impl<'a> NewLetter<'a> {
    /// The event itself is at fault, for `reason`, and blocks `blocked_key`.
    pub fn at_fault(blocked_key: &'a str, reason: &'a str) -> Self {
        Self {
            blocked_key,
            reason,
            waiting: false,
        }
    }
}

/// Makes `event` a dead letter.
pub fn insert(
    tx: &Tx,
    projection: &'static str,
    source: &str,
    event: &Envelope,
    why: &NewLetter<'_>,
) -> Result<(), DbErr> {
    log(projection, source, event, why);
    let id = event.id.as_ref();
    tx.run_raw(statement(
        tx,
        "INSERT INTO headwater_dead_letter
             (projection, source, lane, epoch, position, sequence, subject, payload, reason,
              recorded_at, waiting)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            projection.into(),
            source.into(),
            why.blocked_key.into(),
            id.map(|id| &*id.epoch).into(),
            id.map(|id| signed(id.position)).into(),
            event.sequence.map(signed).into(),
            (*event.subject).into(),
            event.payload.to_vec().into(),
            why.reason.into(),
            tx.now_ms().into(),
            why.waiting.into(),
        ],
    ))
}

/// Logs and counts that `event` became a dead letter.
fn log(projection: &'static str, source: &str, event: &Envelope, why: &NewLetter<'_>) {
    let (blocked_key, reason) = (why.blocked_key, why.reason);
    let id = event.id.as_ref().map(tracing::field::display);
    let (subject, sequence) = (&*event.subject, event.sequence);
    if why.waiting {
        tracing::warn!(
            projection,
            source,
            event.subject = subject,
            event.id = id,
            event.sequence = sequence,
            blocked_key,
            "event waits behind a dead letter"
        );
    } else {
        tracing::error!(
            projection,
            source,
            event.subject = subject,
            event.id = id,
            event.sequence = sequence,
            blocked_key,
            reason,
            "an event could not be applied: it is a dead letter now"
        );
    }
    metrics::counter!("headwater_dead_letters_total", "projection" => projection, "source" => source.to_owned())
        .increment(1);
}

/// The number of dead letters of `projection` and `source`.
pub fn count(db: &impl ConnectionTrait, projection: &str, source: &str) -> Result<u64, DbErr> {
    counted(
        db,
        "SELECT count(*) AS n FROM headwater_dead_letter WHERE projection = ? AND source = ?",
        [projection.into(), source.into()],
    )
}

/// The first dead letter up to a position.
#[derive(Debug)]
pub struct FirstLetter {
    pub(crate) position: u64,
    /// The number of dead letters up to that position.
    pub(crate) events: u64,
    pub(crate) blocked_key: String,
    pub(crate) reason: String,
    /// In milliseconds since 1970.
    pub(crate) recorded_at: i64,
}

/// The first dead letter of `projection` in the present epoch of `source`, up to the position
/// `upto`.
pub fn first_parked(
    db: &impl ConnectionTrait,
    projection: &str,
    source: &str,
    upto: u64,
) -> Result<Option<FirstLetter>, DbErr> {
    // A client may request any number.
    let upto = i64::try_from(upto).unwrap_or(i64::MAX);
    let row = db.query_one_raw(statement(
        db,
        "SELECT position, lane, reason, recorded_at, count(*) OVER () AS events
         FROM headwater_dead_letter WHERE projection = ?1 AND source = ?2 AND position <= ?3
         AND epoch = (SELECT epoch FROM headwater_checkpoint
             WHERE projection = ?1 AND source = ?2)
         ORDER BY position LIMIT 1",
        [projection.into(), source.into(), upto.into()],
    ))?;
    row.map(|row| {
        Ok(FirstLetter {
            position: unsigned(row.try_get_by("position")?),
            events: unsigned(row.try_get_by("events")?),
            blocked_key: row.try_get_by("lane")?,
            reason: row.try_get_by("reason")?,
            recorded_at: row.try_get_by("recorded_at")?,
        })
    })
    .transpose()
}

/// The keys under which letters of `source` wait.
pub fn blocked_keys(tx: &Tx, projection: &str, source: &str) -> Result<HashSet<String>, DbErr> {
    let rows = tx.query_all_raw(statement(
        tx,
        "SELECT DISTINCT lane FROM headwater_dead_letter WHERE projection = ? AND source = ?",
        [projection.into(), source.into()],
    ))?;
    rows.iter().map(|row| row.try_get_by("lane")).collect()
}

/// Identifies an event of a source: its position in the outbox, or its sequence in the stream if it
/// was published by hand.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    epoch: Option<String>,
    place: Option<u64>,
}

impl Identity {
    pub(crate) fn of(event: &Envelope) -> Self {
        match &event.id {
            Some(EventId {
                epoch, position, ..
            }) => Self {
                epoch: Some(epoch.to_string()),
                place: Some(*position),
            },
            None => Self {
                epoch: None,
                place: event.sequence,
            },
        }
    }
}

/// The discarded events of `source`.
pub fn discarded(tx: &Tx, projection: &str, source: &str) -> Result<HashSet<Identity>, DbErr> {
    let rows = tx.query_all_raw(statement(
        tx,
        "SELECT epoch, coalesce(position, sequence) AS place FROM headwater_discarded
         WHERE projection = ? AND source = ?",
        [projection.into(), source.into()],
    ))?;
    rows.iter()
        .map(|row| {
            Ok(Identity {
                epoch: row.try_get_by("epoch")?,
                place: row.try_get_by::<Option<i64>, _>("place")?.map(unsigned),
            })
        })
        .collect()
}
