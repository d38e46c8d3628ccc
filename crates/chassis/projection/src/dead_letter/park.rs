//! Parking an event, and knowing which others wait behind it.

use std::collections::HashSet;

use headwater_event::{Envelope, EventId};
use headwater_store::Tx;
use headwater_store::number::{signed, unsigned};
use sea_orm::{ConnectionTrait, DbErr};

use crate::dead_letter::sql::{counted, statement};

/// Why an event is parked.
#[derive(Debug)]
pub struct Parked<'a> {
    pub(crate) lane: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) waiting: bool,
}

/// Parks `event`.
pub fn park(
    tx: &Tx,
    projection: &'static str,
    source: &str,
    event: &Envelope,
    why: &Parked<'_>,
) -> Result<(), DbErr> {
    tell(projection, source, event, why);
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
            why.lane.into(),
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

/// Logs and counts that `event` is parked.
fn tell(projection: &'static str, source: &str, event: &Envelope, why: &Parked<'_>) {
    let (lane, reason) = (why.lane, why.reason);
    let id = event.id.as_ref().map(tracing::field::display);
    let (subject, sequence) = (&*event.subject, event.sequence);
    if why.waiting {
        tracing::warn!(
            projection,
            source,
            event.subject = subject,
            event.id = id,
            event.sequence = sequence,
            lane,
            "event waits behind a dead letter"
        );
    } else {
        tracing::error!(
            projection,
            source,
            event.subject = subject,
            event.id = id,
            event.sequence = sequence,
            lane,
            reason,
            "event parked as a dead letter"
        );
    }
    metrics::counter!("headwater_dead_letters_total", "projection" => projection, "source" => source.to_owned())
        .increment(1);
}

/// How many dead letters `projection` has of `source`.
pub fn count(db: &impl ConnectionTrait, projection: &str, source: &str) -> Result<u64, DbErr> {
    counted(
        db,
        "SELECT count(*) AS n FROM headwater_dead_letter WHERE projection = ? AND source = ?",
        [projection.into(), source.into()],
    )
}

/// The first dead letter up to a position.
#[derive(Debug)]
pub struct FirstParked {
    pub(crate) position: u64,
    /// How many there are up to that position.
    pub(crate) events: u64,
    pub(crate) lane: String,
    pub(crate) reason: String,
    /// In milliseconds since 1970.
    pub(crate) recorded_at: i64,
}

/// The first dead letter that `projection` has of the present epoch of `source`, up to the
/// position `upto`.
pub fn first_parked(
    db: &impl ConnectionTrait,
    projection: &str,
    source: &str,
    upto: u64,
) -> Result<Option<FirstParked>, DbErr> {
    // A client may ask for any number.
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
        Ok(FirstParked {
            position: unsigned(row.try_get_by("position")?),
            events: unsigned(row.try_get_by("events")?),
            lane: row.try_get_by("lane")?,
            reason: row.try_get_by("reason")?,
            recorded_at: row.try_get_by("recorded_at")?,
        })
    })
    .transpose()
}

/// The lanes in which letters of `source` wait.
pub fn blocked_lanes(tx: &Tx, projection: &str, source: &str) -> Result<HashSet<String>, DbErr> {
    let rows = tx.query_all_raw(statement(
        tx,
        "SELECT DISTINCT lane FROM headwater_dead_letter WHERE projection = ? AND source = ?",
        [projection.into(), source.into()],
    ))?;
    rows.iter().map(|row| row.try_get_by("lane")).collect()
}

/// What tells an event from all others of its source: its place in the outbox, or in the stream
/// where somebody published it by hand.
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

/// The events of `source` that were given up.
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
