//! One batch, in one transaction: judge, apply, park what is poison, move the checkpoint.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

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
    /// Whether nothing was done, because the checkpoint is of another stream: the tables are
    /// those of another store now, which was swapped in.
    pub(super) is_elsewhere: bool,
}

impl Batch {
    fn elsewhere(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            applied: 0,
            skipped: 0,
            parked: 0,
            dead_letters: 0,
            gap: None,
            is_elsewhere: true,
        }
    }
}

/// Events that are missing before one that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) epoch: Arc<str>,
    /// The last position before it.
    pub(super) have: u64,
    /// The position that came.
    pub(super) came: u64,
}

impl Gap {
    /// Whether both begin at the same place: more may have come since, it is the same gap.
    pub(super) fn is_where(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.have == other.have
    }
}

/// What is done where not all of a batch can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Otherwise {
    /// Nothing: it is poison as a whole, and to be rolled back.
    Refuse,
    /// What is at fault is parked.
    Park,
}

/// Applies `events`, which are of one source and its stream made at `stream_created`, up to the
/// first gap.
pub(super) fn batch<P: Projection>(
    projection: &P,
    tx: &Tx,
    (source, stream_created): (&'static str, i64),
    events: &[Envelope],
    otherwise: Otherwise,
) -> Result<Batch, ApplyError> {
    let mut checkpoint = Checkpoint::load(tx, P::NAME, source)?;
    if checkpoint.stream_created != stream_created {
        return Ok(Batch::elsewhere(checkpoint));
    }
    if otherwise == Otherwise::Refuse {
        refuse_blocked::<P>(tx, source)?;
    }
    let discarded = dead_letter::discarded(tx, P::NAME, source)?;
    let mut gap = None;
    let mut skipped = 0;
    let mut is_due = Vec::with_capacity(events.len());
    for event in events {
        let verdict = checkpoint.judge(event);
        match verdict {
            Verdict::Apply => {
                checkpoint.advance(event);
                let is_discarded =
                    !discarded.is_empty() && discarded.contains(&Identity::of(event));
                is_due.push(!is_discarded);
            }
            Verdict::Skip => {
                checkpoint.pass(event);
                skipped += 1;
                is_due.push(false);
            }
            Verdict::Gap { epoch, have } => {
                let came = event.id.as_ref().map_or(0, |id| id.position);
                gap = Some(Gap { epoch, have, came });
                break;
            }
        }
    }
    let due = those(events, &is_due);
    let applied = due.len();
    let parked = match otherwise {
        Otherwise::Refuse => {
            apply(projection, tx, &due)?;
            0
        }
        Otherwise::Park => apply_or_park(projection, tx, source, due.into_owned())?,
    };
    crash::point("projection.applied");
    checkpoint.save(tx)?;
    crash::point("projection.moved");
    Ok(Batch {
        checkpoint,
        applied: applied - parked,
        skipped,
        parked,
        dead_letters: dead_letter::count(tx, P::NAME, source)?,
        gap,
        is_elsewhere: false,
    })
}

/// The `events` that are marked; usually all, which are not copied then.
fn those<'a>(events: &'a [Envelope], marked: &[bool]) -> Cow<'a, [Envelope]> {
    let looked_at = &events[..marked.len()];
    if marked.iter().all(|marked| *marked) {
        return Cow::Borrowed(looked_at);
    }
    let marked = looked_at.iter().zip(marked).filter(|(_, marked)| **marked);
    Cow::Owned(marked.map(|(event, _)| event.clone()).collect())
}

/// An event may have to wait behind a dead letter.
fn refuse_blocked<P: Projection>(tx: &Tx, source: &'static str) -> Result<(), ApplyError> {
    if dead_letter::count(tx, P::NAME, source)? == 0 {
        return Ok(());
    }
    Err(ApplyError::Poison("dead letters wait".to_owned()))
}

/// Applies `events`, parking those that cannot be; gives how many were parked.
///
/// All at once, as long as that works. Poison among them is narrowed down by halves, so that one
/// event at fault among thousands costs a few tries, and those before it are applied before.
fn apply_or_park<P: Projection>(
    projection: &P,
    tx: &Tx,
    source: &'static str,
    events: Vec<Envelope>,
) -> Result<usize, ApplyError> {
    let mut parked = 0;
    // The earliest last.
    let mut runs = vec![events];
    while let Some(mut run) = runs.pop() {
        parked += park_blocked(projection, tx, source, &mut run)?;
        match guarded(projection, tx, &run) {
            Err(ApplyError::Poison(reason)) => {
                if let [event] = &*run {
                    let why = Parked {
                        lane: &lanes(projection, event)[0],
                        reason: &reason,
                        waiting: false,
                    };
                    dead_letter::park(tx, P::NAME, source, event, &why)?;
                    parked += 1;
                } else {
                    let later = run.split_off(run.len() / 2);
                    runs.extend([later, run]);
                }
            }
            result => result?,
        }
    }
    Ok(parked)
}

/// Parks those of `run` that have to wait behind a dead letter, and takes them out; gives how
/// many.
fn park_blocked<P: Projection>(
    projection: &P,
    tx: &Tx,
    source: &'static str,
    run: &mut Vec<Envelope>,
) -> Result<usize, ApplyError> {
    let blocked = dead_letter::blocked_lanes(tx, P::NAME, source)?;
    if blocked.is_empty() {
        return Ok(0);
    }
    let before = run.len();
    for event in std::mem::take(run) {
        let lanes = lanes(projection, &event);
        let Some(lane) = lanes.iter().find(|lane| blocked.contains(*lane)) else {
            run.push(event);
            continue;
        };
        let why = Parked {
            lane,
            reason: "waits behind a parked event",
            waiting: true,
        };
        dead_letter::park(tx, P::NAME, source, &event, &why)?;
    }
    Ok(before - run.len())
}

/// Runs `apply` in a savepoint.
pub(super) fn guarded<P: Projection>(
    projection: &P,
    tx: &Tx,
    events: &[Envelope],
) -> Result<(), ApplyError> {
    tx.savepoint(|tx| apply(projection, tx, events))
}

/// Runs `apply`; a panic in it is poison, and so is an event that is too large.
fn apply<P: Projection>(projection: &P, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
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
    catch_unwind(AssertUnwindSafe(|| projection.apply(tx, events)))
        .unwrap_or_else(|_| Err(ApplyError::Poison("applying it panicked".to_owned())))
}

/// The lanes in which an event waits, the narrowest first: its key, its partition.
fn lanes<P: Projection>(projection: &P, event: &Envelope) -> Vec<String> {
    let key = catch_unwind(AssertUnwindSafe(|| projection.key(event))).unwrap_or_default();
    key.map(|key| format!("key {key}"))
        .into_iter()
        .chain([format!("partition {}", event.partition())])
        .collect()
}
