//! How far a read store is, and why it has not reached a wanted position.

use crate::position::Positions;

/// How far a projection has got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AsOf {
    /// The last position of each source that was applied or dead-lettered.
    pub applied: Positions,
    /// The first dead-lettered position of each source that has one.
    pub parked: Positions,
}

impl AsOf {
    /// The positions up to which every event is applied: before each source's first dead letter.
    pub fn without_gaps(&self) -> Positions {
        let mut positions = self.applied.clone();
        for (source, dead_lettered) in &self.parked.0 {
            let at = positions.0.entry(source.clone()).or_default();
            *at = (*at).min(dead_lettered.saturating_sub(1));
        }
        positions
    }
}

/// Why the projection did not reach the wanted position in time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behind {
    /// The projection has only reached `at`.
    #[error("the read store is at `{at}`, not yet at `{asked}`")]
    NotYet {
        /// The positions it has reached.
        at: Positions,
        /// The wanted positions.
        asked: Positions,
    },
    /// The projection has not yet caught up with all its sources for the first time.
    #[error("the read store is still being built; it is at `{at}`")]
    Incomplete {
        /// The positions it has reached.
        at: Positions,
    },
    /// An event at or before the wanted position is a dead letter.
    #[error(
        "`{source_name}:{position}` could not be applied and has been a dead letter since {since} \
         ({lane}): {reason}; {events} events of {source_name} up to the wanted position are not \
         in the read store"
    )]
    DeadLettered {
        /// The source.
        source_name: String,
        /// The first dead-lettered position.
        position: u64,
        /// Dead letters up to the wanted position, including those that wait behind others.
        events: u64,
        /// The blocked key, `key …`; `event …` if the event's key is not known.
        lane: String,
        /// Why the event could not be applied.
        reason: String,
        /// When it became a dead letter, in RFC 3339.
        since: String,
    },
    /// The service does not follow this source.
    #[error("this service does not follow the source `{0}`")]
    UnknownSource(String),
}
