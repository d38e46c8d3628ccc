//! Applies one batch in one transaction: classifies the events, applies them, turns poison into
//! dead letters, moves the checkpoint.

use std::borrow::Cow;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use headwater_event::{Envelope, MAX_PAYLOAD};
use headwater_store::Tx;
use headwater_telemetry::crash;

use crate::anomaly::{Anomalies, Kind, Tally};
use crate::checkpoint::{Checkpoint, Disposition};
use crate::dead_letter;
use crate::dead_letter::insert::{Identity, NewLetter};
use crate::gap::Gap;
use crate::newer::Newer;
use crate::projection::{ApplyError, Projection};
use crate::source_answer::EpochAnswer;

/// The most events of a batch that came again and are compared with the outbox.
const AGAIN_MAX: usize = 1000;

/// Events of one source to apply.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) source: &'static str,
    /// The events' stream, by when it was created.
    pub(super) stream_created: i64,
    pub(super) events: Arc<Vec<Envelope>>,
    /// The source's answer about its epoch since the events came.
    pub(super) epoch_answer: EpochAnswer,
}

/// The result of a batch.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) checkpoint: Checkpoint,
    pub(super) applied: usize,
    pub(super) skipped: usize,
    pub(super) parked: usize,
    /// Dead letters of this source, including those of earlier batches.
    pub(super) dead_letters: u64,
    /// The first position with a dead letter, in the source's present epoch.
    pub(super) first_parked: Option<u64>,
    /// Events without a position, published by hand.
    pub(super) by_hand: Tally,
    /// Events of an epoch that the source does not have.
    pub(super) foreign: Tally,
    /// Known positions that came again, later in the stream.
    pub(super) again: Vec<Envelope>,
    /// The stream's anomalies, if they have changed.
    pub(super) anomalies: Option<Anomalies>,
    /// Why the batch had to stop.
    pub(super) stop: Option<Stop>,
    /// How many of the events were processed: all, unless the batch had to stop.
    pub(super) looked_at: usize,
    /// Whether nothing was done because the checkpoint is of another stream: another store was
    /// swapped in.
    pub(super) is_stream_changed: bool,
}

impl Batch {
    fn new(checkpoint: Checkpoint) -> Self {
        Self {
            checkpoint,
            applied: 0,
            skipped: 0,
            parked: 0,
            dead_letters: 0,
            first_parked: None,
            by_hand: Tally::default(),
            foreign: Tally::default(),
            again: Vec::new(),
            anomalies: None,
            stop: None,
            looked_at: 0,
            is_stream_changed: false,
        }
    }
}

/// Why the rest of a batch cannot be applied yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// Events are missing before the next one.
    Gap(Gap),
    /// The next event is of this epoch, which the source has not confirmed.
    Unconfirmed(Arc<str>),
    /// The next event is in a newer version than the program knows.
    Newer(Newer),
}

/// What to do if not all of a batch can be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnPoison {
    /// Treat the whole batch as poison and roll back.
    Refuse,
    /// Turn the events at fault into dead letters.
    DeadLetter,
}

/// Applies the events of `input`, up to the first that cannot be classified yet.
pub(super) fn batch<P: Projection>(
    projection: &P,
    tx: &Tx,
    input: &Input,
    on_poison: OnPoison,
) -> Result<Batch, ApplyError> {
    let Input { source, events, .. } = input;
    let mut batch = Batch::new(Checkpoint::load(tx, P::NAME, source)?);
    if batch.checkpoint.stream_created != input.stream_created {
        batch.is_stream_changed = true;
        return Ok(batch);
    }
    let discarded = if batch.checkpoint.has_discarded {
        dead_letter::discarded(tx, P::NAME, source)?
    } else {
        HashSet::new()
    };
    let is_discarded =
        |event: &Envelope| !discarded.is_empty() && discarded.contains(&Identity::of(event));
    let newer = |event: &Envelope| Newer::of::<P>(event, tx.owner());
    let due = classify(&mut batch, input, is_discarded, newer);
    let due = those(events, &due);
    let applied = due.len();
    let are_some_waiting = batch.checkpoint.dead_letters > 0;
    // An event may have to wait behind a dead letter.
    if on_poison == OnPoison::DeadLetter || are_some_waiting {
        batch.parked =
            apply_or_dead_letter(projection, tx, source, due.into_owned(), are_some_waiting)?;
    } else {
        apply(projection, tx, &due)?;
    }
    batch.applied = applied - batch.parked;
    crash::point("projection.applied");
    batch.checkpoint.save(tx)?;
    crash::point("projection.moved");
    batch.anomalies = note_anomalies::<P>(tx, input, &batch)?;
    batch.dead_letters = batch.checkpoint.dead_letters + batch.parked as u64;
    if batch.dead_letters > 0 {
        let first = dead_letter::first_parked(tx, P::NAME, source, u64::MAX)?;
        batch.first_parked = first.map(|first| first.position);
    }
    Ok(batch)
}

/// Moves the checkpoint of `batch` past the events of `input` and records what they are. Returns
/// which to apply.
fn classify(
    batch: &mut Batch,
    input: &Input,
    is_discarded: impl Fn(&Envelope) -> bool,
    newer: impl Fn(&Envelope) -> Option<Newer>,
) -> Vec<bool> {
    let mut is_due = Vec::with_capacity(input.events.len());
    for event in &*input.events {
        let checkpoint = &mut batch.checkpoint;
        let due = match checkpoint.classify(event, &input.epoch_answer) {
            Disposition::Apply => {
                let is_discarded = is_discarded(event);
                if let Some(newer) = newer(event).filter(|_| !is_discarded) {
                    batch.stop = Some(Stop::Newer(newer));
                    break;
                }
                if !checkpoint.is_own(event) {
                    batch.by_hand.add(event);
                }
                checkpoint.advance(event, &input.epoch_answer);
                !is_discarded
            }
            Disposition::Skip => {
                let is_later = event.sequence > Some(checkpoint.sequence);
                if is_later && batch.again.len() < AGAIN_MAX {
                    batch.again.push(event.clone());
                }
                checkpoint.pass(event);
                batch.skipped += 1;
                false
            }
            Disposition::Foreign => {
                checkpoint.pass(event);
                batch.foreign.add(event);
                false
            }
            Disposition::Unconfirmed(epoch) => {
                batch.stop = Some(Stop::Unconfirmed(epoch));
                break;
            }
            Disposition::Gap { epoch, have } => {
                let came = event.id.as_ref().map_or(0, |id| id.position);
                batch.stop = Some(Stop::Gap(Gap { epoch, have, came }));
                break;
            }
        };
        is_due.push(due);
    }
    batch.looked_at = is_due.len();
    is_due
}

/// Counts the anomalies in `batch`. Returns the totals if there are new ones.
fn note_anomalies<P: Projection>(
    tx: &Tx,
    input: &Input,
    batch: &Batch,
) -> Result<Option<Anomalies>, ApplyError> {
    let (source, stream_created) = (input.source, input.stream_created);
    let mut missing = Tally::default();
    let looked_at = &input.events[..batch.looked_at];
    for event in looked_at.iter().filter(|event| event.sequence.is_none()) {
        missing.add(event);
    }
    let found = [
        (&batch.by_hand, Kind::ByHand),
        (&batch.foreign, Kind::ForeignEpoch),
        (&missing, Kind::Missing),
    ];
    if found.iter().all(|(tally, _)| tally.events == 0) {
        return Ok(None);
    }
    for (tally, kind) in found {
        tally.save(tx, (P::NAME, source), stream_created, kind)?;
    }
    Ok(Some(Anomalies::load(tx, P::NAME, source)?))
}

/// The marked `events`; does not copy if all are marked, as is usual.
fn those<'a>(events: &'a [Envelope], marked: &[bool]) -> Cow<'a, [Envelope]> {
    let looked_at = &events[..marked.len()];
    if marked.iter().all(|marked| *marked) {
        return Cow::Borrowed(looked_at);
    }
    let marked = looked_at.iter().zip(marked).filter(|(_, marked)| **marked);
    Cow::Owned(marked.map(|(event, _)| event.clone()).collect())
}

/// Applies `events`; those that cannot be applied become dead letters. Returns how many did.
///
/// Tries all events at once first. Poison is narrowed down by halves, so one event at fault among
/// thousands costs a few attempts, and the events before it are applied first.
fn apply_or_dead_letter<P: Projection>(
    projection: &P,
    tx: &Tx,
    source: &'static str,
    events: Vec<Envelope>,
    are_some_waiting: bool,
) -> Result<usize, ApplyError> {
    let mut parked = 0;
    // The earliest is last.
    let mut runs = vec![events];
    while let Some(mut run) = runs.pop() {
        if are_some_waiting || parked > 0 {
            parked += park_blocked(projection, tx, source, &mut run)?;
        }
        match guarded(projection, tx, &run) {
            Err(ApplyError::Poison(reason)) => {
                if let [event] = &*run {
                    let blocked_key = blocked_key(projection, event);
                    let why = NewLetter::at_fault(&blocked_key, &reason);
                    dead_letter::insert(tx, P::NAME, source, event, &why)?;
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

/// Moves the events of `run` that must wait behind a dead letter to the dead letters. Returns how
/// many.
fn park_blocked<P: Projection>(
    projection: &P,
    tx: &Tx,
    source: &'static str,
    run: &mut Vec<Envelope>,
) -> Result<usize, ApplyError> {
    let blocked = dead_letter::blocked_keys(tx, P::NAME, source)?;
    if blocked.is_empty() {
        return Ok(0);
    }
    let before = run.len();
    for event in std::mem::take(run) {
        // Earlier versions blocked a partition if a key could not be read: letters that still wait
        // there come first.
        let keys = [
            blocked_key(projection, &event),
            format!("partition {}", event.partition()),
        ];
        let Some(key) = keys.iter().find(|key| blocked.contains(*key)) else {
            run.push(event);
            continue;
        };
        let why = NewLetter {
            blocked_key: key,
            reason: "waits behind a parked event",
            waiting: true,
        };
        dead_letter::insert(tx, P::NAME, source, &event, &why)?;
    }
    Ok(before - run.len())
}

/// Runs `apply` in a savepoint. A dead letter may be in a newer version than the program knows, if
/// it was made by a newer program: it stays one.
pub(super) fn guarded<P: Projection>(
    projection: &P,
    tx: &Tx,
    events: &[Envelope],
) -> Result<(), ApplyError> {
    let mut newer = events
        .iter()
        .filter_map(|event| Newer::of::<P>(event, tx.owner()));
    if let Some(newer) = newer.next() {
        return Err(ApplyError::Poison(newer.to_string()));
    }
    tx.savepoint(|tx| apply(projection, tx, events))
}

/// Runs `apply`. A panic in it is poison, and so is an event that is too large.
fn apply<P: Projection>(projection: &P, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
    if events.is_empty() {
        return Ok(());
    }
    if let Some(event) = events
        .iter()
        .find(|event| event.payload.len() > MAX_PAYLOAD)
    {
        // The outbox refuses such an event: it was published by hand.
        let bytes = event.payload.len();
        return Err(ApplyError::Poison(format!(
            "its {bytes} bytes are above the limit of {MAX_PAYLOAD}"
        )));
    }
    catch_unwind(AssertUnwindSafe(|| projection.apply(tx, events)))
        .unwrap_or_else(|_| Err(ApplyError::Poison("applying it panicked".to_owned())))
}

/// The key of an event, if it can be read.
pub(super) fn key<P: Projection>(projection: &P, event: &Envelope) -> Option<String> {
    catch_unwind(AssertUnwindSafe(|| projection.key(event))).unwrap_or_default()
}

/// The blocked key under which an event waits. An event whose key cannot be read gets its own,
/// because its successors are unknown.
fn blocked_key<P: Projection>(projection: &P, event: &Envelope) -> String {
    match (key(projection, event), &event.id) {
        (Some(key), _) => format!("key {key}"),
        (None, Some(id)) => format!("event {id}"),
        (None, None) => format!("event at sequence {}", event.sequence.unwrap_or_default()),
    }
}
