//! Applies events without a broker, for tests of projections; only with the feature `testing`.
//!
//! The code is that of a running projection, after the events have come: the same checkpoint, the
//! same transaction, the same dead letters. Gaps and foreign epochs are left out, because closing
//! them needs the source.

use std::sync::Arc;

use headwater_event::Envelope;
use headwater_store::Tx;
use sea_orm::DbErr;

use crate::anomaly;
use crate::apply::{self, Input, OnPoison};
use crate::checkpoint::Checkpoint;
use crate::projection::{ApplyError, Projection};
use crate::source_answer::EpochAnswer;
use headwater_nats::start::Start;

/// A source, and its stream by when it was created.
pub type Stream = (&'static str, i64);

/// Starts reading a stream after the sequence `known`, as when a feed opens: for the first time, or
/// because the stream was recreated or rolled back.
///
/// # Errors
/// The database's.
pub fn read_after<P: Projection>(
    tx: &Tx,
    (source, stream_created): Stream,
    known: u64,
) -> Result<(), DbErr> {
    let mut checkpoint = Checkpoint::load(tx, P::NAME, source)?;
    let start = Start {
        stream_created,
        known,
    };
    if checkpoint.rewind(start) {
        checkpoint.save(tx)?;
        anomaly::forget_behind(tx, P::NAME, source, known)?;
    }
    Ok(())
}

/// Applies one batch of a source, whose epoch is `epoch`, and moves the checkpoint. The stream is
/// that of the last [`read_after`].
///
/// # Errors
/// The projection's transient errors. Poison becomes a dead letter.
///
/// # Panics
/// The events are of another epoch or stream, or events before them are missing.
pub fn apply<P: Projection>(
    projection: &P,
    tx: &Tx,
    (source, stream_created): Stream,
    epoch: &str,
    events: Vec<Envelope>,
) -> Result<(), ApplyError> {
    let input = Input {
        source,
        stream_created,
        events: Arc::new(events),
        epoch_answer: EpochAnswer::Epoch(epoch.into()),
    };
    let batch = apply::batch(projection, tx, &input, OnPoison::DeadLetter)?;
    assert!(!batch.is_stream_changed, "{source}: another stream is read");
    assert_eq!(batch.stop, None, "{source}");
    assert_eq!(batch.foreign.events, 0, "{source}: events of another epoch");
    Ok(())
}
