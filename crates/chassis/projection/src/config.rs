//! How a projection runs.

use headwater_nats::consumer;
use headwater_nats::control::RebuildPurpose;

use crate::projection::Projection;

/// The most events in one transaction of a read store. A large store costs page writes, and a
/// larger batch changes more rows per page.
const COPY_BATCH_MAX: usize = 100_000;

/// How a projection runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The most events in one transaction.
    pub batch_max: usize,
    /// Whether only this projection writes to the database.
    pub(crate) is_exclusive: bool,
    /// Whether the stored pause counts; a rebuild next to a paused store ignores it.
    pub(crate) is_pausable: bool,
    /// What ends a contradiction with a source.
    pub(crate) remedy: Remedy,
    /// Whether events with a position are taken from their source's outbox, wherever they are in
    /// the stream. Those that the outbox does not have are left out.
    pub(crate) is_of_outbox: bool,
    /// The name of the durable consumers, and of the projection in metrics.
    pub consumer: String,
    /// The crash points before and after a batch.
    pub(crate) crash_points: [&'static str; 2],
}

/// What ends a contradiction between a projection and a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// A rebuild, which forgets what was applied.
    Rebuild,
    /// What was applied stays, as the intents of an effect do. Other events follow it.
    GoOn,
}

impl Config {
    /// The defaults for the projection `P` in a database with other writers: a batch delays them,
    /// for some 10 ms at most.
    pub fn of<P: Projection>() -> Self {
        Self {
            batch_max: 2_000,
            is_exclusive: false,
            is_pausable: true,
            remedy: Remedy::Rebuild,
            is_of_outbox: false,
            consumer: P::NAME.to_owned(),
            crash_points: ["projection.received", "projection.committed"],
        }
    }

    /// The defaults for a projection that is never rebuilt, because others act on what it writes.
    pub fn of_effect<P: Projection>() -> Self {
        Self {
            remedy: Remedy::GoOn,
            ..Self::of::<P>()
        }
    }

    /// The defaults for a read store, which has no other writers.
    pub fn of_copy<P: Projection>() -> Self {
        Self {
            batch_max: COPY_BATCH_MAX,
            is_exclusive: true,
            ..Self::of::<P>()
        }
    }

    /// The defaults for a store rebuilt next to the live one. To verify, it is built from the
    /// outboxes.
    pub fn beside<P: Projection>(then: RebuildPurpose) -> Self {
        Self {
            is_pausable: false,
            is_of_outbox: then == RebuildPurpose::Verify,
            consumer: consumer::beside(P::NAME, then),
            crash_points: ["rebuild.received", "rebuild.folding"],
            ..Self::of_copy::<P>()
        }
    }
}
