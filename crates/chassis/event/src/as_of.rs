//! How far a copy is, and why it is not as far as somebody wants it.

use crate::position::Positions;

/// How far a projection has got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AsOf {
    /// The last position of each source that was applied or parked as a dead letter.
    pub applied: Positions,
    /// The first position that is parked, of each source that has a dead letter.
    pub parked: Positions,
}

impl AsOf {
    /// The positions up to which nothing is missing: before the first dead letter of a source.
    pub fn without_gaps(&self) -> Positions {
        let mut whole = self.applied.clone();
        for (source, parked) in &self.parked.0 {
            let at = whole.0.entry(source.clone()).or_default();
            *at = (*at).min(parked.saturating_sub(1));
        }
        whole
    }
}

/// The projection did not get there in time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Behind {
    /// It has only got this far.
    #[error("the copy is at `{at}`, not yet at `{asked}`")]
    NotYet {
        /// How far it has got.
        at: Positions,
        /// What was asked for.
        asked: Positions,
    },
    /// It was never at the end of all its sources: what it has is not whole.
    #[error("the copy is folded from the first event on and is at `{at}`")]
    Incomplete {
        /// How far it has got.
        at: Positions,
    },
    /// An event at or before the position that was asked for is a dead letter.
    #[error(
        "`{source_name}:{position}` could not be applied and is parked since {since} ({lane}): \
         {reason}; up to the position that was asked for, {events} of the events of {source_name} \
         are not in the copy"
    )]
    Parked {
        /// The source.
        source_name: String,
        /// The first position that is parked.
        position: u64,
        /// How many are parked up to the asked position, those that wait behind others too.
        events: u64,
        /// What it is parked with: `key …`, or `event …`.
        lane: String,
        /// Why.
        reason: String,
        /// Since when, RFC 3339.
        since: String,
    },
    /// It does not follow this source at all.
    #[error("`{0}` is not a source that this service follows")]
    UnknownSource(String),
}
