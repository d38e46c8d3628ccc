//! How a projection runs.

use headwater_nats::consumer;
use headwater_nats::control::RebuildPurpose;

use crate::projection::Projection;

/// Events in one transaction of a read store, at most: what a large store costs is its pages, and
/// the more events at once, the more of their rows are on each.
const COPY_BATCH_MAX: usize = 100_000;

/// How a projection runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Events in one transaction, at most.
    pub batch_max: usize,
    /// Whether nobody else writes to the database.
    pub(crate) is_alone: bool,
    /// Whether a pause in the database counts: a fold beside a paused store goes on.
    pub(crate) is_pausable: bool,
    /// Whether events with a position are taken from their source's outbox, wherever they lie in
    /// the stream, and those that it does not have are left out.
    pub(crate) is_of_outbox: bool,
    /// The durable consumers' name, and the projection's in metrics.
    pub consumer: String,
    /// Where the process dies before and after a batch, if it is told to.
    pub(crate) crash_points: [&'static str; 2],
}

impl Config {
    /// The defaults for the projection `P` in a database that others write to as well: a batch
    /// holds them up, for some 10 ms at most.
    pub fn of<P: Projection>() -> Self {
        Self {
            batch_max: 2_000,
            is_alone: false,
            is_pausable: true,
            is_of_outbox: false,
            consumer: P::NAME.to_owned(),
            crash_points: ["projection.received", "projection.committed"],
        }
    }

    /// The same for a read store, which nobody else writes to.
    pub fn of_copy<P: Projection>() -> Self {
        Self {
            batch_max: COPY_BATCH_MAX,
            is_alone: true,
            ..Self::of::<P>()
        }
    }

    /// The same for a store that is folded beside the live one: the one to compare with is a fold
    /// of the outboxes.
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
