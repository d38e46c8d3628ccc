//! One batch, in one transaction: judge, apply, park what is poison, move the checkpoint.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

use super::checkpoint::{Checkpoint, Verdict};
use super::{ApplyError, Projection};
use crate::crash;
use crate::database::Tx;
use crate::envelope::Envelope;
use crate::outbox::{signed, unsigned};

/// What became of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) checkpoint: Checkpoint,
    pub(super) applied: usize,
    pub(super) skipped: usize,
    pub(super) parked: usize,
    /// Dead letters of this source, those of earlier batches among them.
    pub(super) dead_letters: u64,
    /// Where the batch had to stop.
    pub(super) gap: Option<Gap>,
}

/// Events that are missing before one that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) epoch: String,
    /// The last position before it.
    pub(super) have: u64,
    /// The position that came.
    pub(super) came: u64,
}

/// Applies `events`, which are of one source, up to the first gap.
pub(super) fn batch<P: Projection>(
    projection: &P,
    tx: &Tx,
    source: &'static str,
    events: &[Envelope],
) -> Result<Batch, ApplyError> {
    let mut checkpoint = Checkpoint::load(tx, P::NAME, source)?;
    let mut due = Vec::with_capacity(events.len());
    let mut gap = None;
    let mut skipped = 0;
    for event in events {
        match checkpoint.judge(event) {
            Verdict::Apply => {
                checkpoint.advance(event);
                due.push(event.clone());
            }
            Verdict::Skip => {
                checkpoint.pass(event);
                skipped += 1;
            }
            Verdict::Gap { epoch, have } => {
                let came = event.id.as_ref().map_or(0, |id| id.position);
                gap = Some(Gap { epoch, have, came });
                break;
            }
        }
    }
    let parked = apply_or_park(projection, tx, source, &due)?;
    crash::point("projection.applied");
    checkpoint.save(tx)?;
    crash::point("projection.moved");
    Ok(Batch {
        checkpoint,
        applied: due.len() - parked,
        skipped,
        parked,
        dead_letters: dead_letters(tx, P::NAME, source)?,
        gap,
    })
}

/// Applies `events`, parking those that cannot be; gives how many were parked.
fn apply_or_park<P: Projection>(
    projection: &P,
    tx: &Tx,
    source: &'static str,
    events: &[Envelope],
) -> Result<usize, ApplyError> {
    if dead_letters(tx, P::NAME, source)? == 0 {
        match guarded(projection, tx, events) {
            Err(ApplyError::Poison(_)) => {}
            result => return result.map(|()| 0),
        }
    }
    let mut parked = 0;
    for event in events {
        let lanes = lanes(projection, event);
        let reason = if let Some(lane) = blocked_lane(tx, P::NAME, source, &lanes)? {
            Some((lane, "waits behind a parked event".to_owned()))
        } else {
            match guarded(projection, tx, std::slice::from_ref(event)) {
                Ok(()) => None,
                Err(ApplyError::Poison(reason)) => Some((lanes[0].clone(), reason)),
                Err(transient) => return Err(transient),
            }
        };
        if let Some((lane, reason)) = reason {
            park(tx, P::NAME, source, event, &lane, &reason)?;
            parked += 1;
        }
    }
    Ok(parked)
}

/// Runs `apply` in a savepoint; a panic in it is poison.
fn guarded<P: Projection>(projection: &P, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
    if events.is_empty() {
        return Ok(());
    }
    tx.savepoint(|tx| {
        catch_unwind(AssertUnwindSafe(|| projection.apply(tx, events)))
            .unwrap_or_else(|_| Err(ApplyError::Poison("applying it panicked".to_owned())))
    })
}

/// The lanes in which an event waits, the narrowest first: its key, its partition.
fn lanes<P: Projection>(projection: &P, event: &Envelope) -> Vec<String> {
    let key = catch_unwind(AssertUnwindSafe(|| projection.key(event))).unwrap_or_default();
    key.map(|key| format!("key {key}"))
        .into_iter()
        .chain([format!("partition {}", event.partition())])
        .collect()
}

/// How many dead letters `projection` has of `source`.
pub(super) fn dead_letters(
    db: &impl ConnectionTrait,
    projection: &str,
    source: &str,
) -> Result<u64, DbErr> {
    let row = db.query_one_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "SELECT count(*) AS letters FROM headwater_dead_letter
         WHERE projection = ? AND source = ?",
        [projection.into(), source.into()] as [Value; 2],
    ))?;
    row.map_or(Ok(0), |row| row.try_get_by("letters").map(unsigned))
}

fn blocked_lane(
    tx: &Tx,
    projection: &str,
    source: &str,
    lanes: &[String],
) -> Result<Option<String>, DbErr> {
    for lane in lanes {
        let row = tx.query_one_raw(Statement::from_sql_and_values(
            tx.get_database_backend(),
            "SELECT 1 FROM headwater_dead_letter
             WHERE projection = ? AND source = ? AND lane = ? LIMIT 1",
            [projection.into(), source.into(), lane.as_str().into()] as [Value; 3],
        ))?;
        if row.is_some() {
            return Ok(Some(lane.clone()));
        }
    }
    Ok(None)
}

fn park(
    tx: &Tx,
    projection: &'static str,
    source: &str,
    event: &Envelope,
    lane: &str,
    reason: &str,
) -> Result<(), DbErr> {
    tracing::error!(
        projection,
        source,
        event.subject,
        event.id = event.id.as_ref().map(tracing::field::display),
        event.sequence,
        lane,
        reason,
        "event parked as a dead letter"
    );
    metrics::counter!("headwater_dead_letters_total", "projection" => projection, "source" => source.to_owned())
        .increment(1);
    tx.run_raw(Statement::from_sql_and_values(
        tx.get_database_backend(),
        "INSERT INTO headwater_dead_letter
             (projection, source, lane, epoch, position, sequence, subject, payload, reason, recorded_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            projection.into(),
            source.into(),
            lane.into(),
            event.id.as_ref().map(|id| id.epoch.clone()).into(),
            event.id.as_ref().map(|id| signed(id.position)).into(),
            event.sequence.map(signed).into(),
            event.subject.clone().into(),
            event.payload.to_vec().into(),
            reason.into(),
            tx.now_ms().into(),
        ] as [Value; 10],
    ))?;
    Ok(())
}
