//! One batch, in one transaction: judge, apply, park what is poison, move the checkpoint.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::checkpoint::{Checkpoint, Verdict};
use super::dead_letter::{self, Identity, Parked};
use super::{ApplyError, Projection};
use crate::crash;
use crate::database::Tx;
use crate::envelope::Envelope;
use crate::event::MAX_PAYLOAD;

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
    let discarded = dead_letter::discarded(tx, P::NAME, source)?;
    if !discarded.is_empty() {
        due.retain(|event| !discarded.contains(&Identity::of(event)));
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
        dead_letters: dead_letter::count(tx, P::NAME, source)?,
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
    if dead_letter::count(tx, P::NAME, source)? == 0 {
        match guarded(projection, tx, events) {
            Err(ApplyError::Poison(_)) => {}
            result => return result.map(|()| 0),
        }
    }
    let mut parked = 0;
    for event in events {
        let lanes = lanes(projection, event);
        if let Some(lane) = dead_letter::blocked(tx, P::NAME, source, &lanes)? {
            let why = Parked {
                lane: &lane,
                reason: "waits behind a parked event",
                waiting: true,
            };
            dead_letter::park(tx, P::NAME, source, event, &why)?;
            parked += 1;
            continue;
        }
        match guarded(projection, tx, std::slice::from_ref(event)) {
            Ok(()) => {}
            Err(ApplyError::Poison(reason)) => {
                let why = Parked {
                    lane: &lanes[0],
                    reason: &reason,
                    waiting: false,
                };
                dead_letter::park(tx, P::NAME, source, event, &why)?;
                parked += 1;
            }
            Err(transient) => return Err(transient),
        }
    }
    Ok(parked)
}

/// Runs `apply` in a savepoint; a panic in it is poison.
pub(super) fn guarded<P: Projection>(
    projection: &P,
    tx: &Tx,
    events: &[Envelope],
) -> Result<(), ApplyError> {
    if events.is_empty() {
        return Ok(());
    }
    if let Some(event) = events
        .iter()
        .find(|event| event.payload.len() > MAX_PAYLOAD)
    {
        // No outbox takes such an event: somebody published it by hand.
        let bytes = event.payload.len();
        return Err(ApplyError::Poison(format!(
            "its {bytes} bytes are above the limit of {MAX_PAYLOAD}"
        )));
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
