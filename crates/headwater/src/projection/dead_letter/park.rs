//! Parking an event, and knowing which others wait behind it.

use std::collections::HashSet;

use sea_orm::{ConnectionTrait, DbErr};

use super::{counted, statement};
use crate::database::Tx;
use crate::envelope::{Envelope, EventId};
use crate::outbox::{signed, unsigned};

/// Why an event is parked.
pub(crate) struct Parked<'a> {
    pub(crate) lane: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) waiting: bool,
}

/// Parks `event`.
pub(crate) fn park(
    tx: &Tx,
    projection: &'static str,
    source: &str,
    event: &Envelope,
    why: &Parked<'_>,
) -> Result<(), DbErr> {
    let Parked {
        lane,
        reason,
        waiting,
    } = *why;
    let id = event.id.as_ref().map(tracing::field::display);
    let (subject, sequence) = (event.subject.as_str(), event.sequence);
    if waiting {
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
    tx.run_raw(statement(
        tx,
        "INSERT INTO headwater_dead_letter
             (projection, source, lane, epoch, position, sequence, subject, payload, reason,
              recorded_at, waiting)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            projection.into(),
            source.into(),
            lane.into(),
            event.id.as_ref().map(|id| &*id.epoch).into(),
            event.id.as_ref().map(|id| signed(id.position)).into(),
            event.sequence.map(signed).into(),
            event.subject.as_str().into(),
            event.payload.to_vec().into(),
            reason.into(),
            tx.now_ms().into(),
            waiting.into(),
        ],
    ))
}

/// How many dead letters `projection` has of `source`.
pub(crate) fn count(
    db: &impl ConnectionTrait,
    projection: &str,
    source: &str,
) -> Result<u64, DbErr> {
    counted(
        db,
        "SELECT count(*) AS n FROM headwater_dead_letter WHERE projection = ? AND source = ?",
        [projection.into(), source.into()],
    )
}

/// The lanes in which letters of `source` wait.
pub(crate) fn blocked_lanes(
    tx: &Tx,
    projection: &str,
    source: &str,
) -> Result<HashSet<String>, DbErr> {
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
pub(crate) struct Identity {
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
pub(crate) fn discarded(
    tx: &Tx,
    projection: &str,
    source: &str,
) -> Result<HashSet<Identity>, DbErr> {
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
