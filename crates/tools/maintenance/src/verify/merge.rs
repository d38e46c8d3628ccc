//! The places of a stream's events against those of the outbox, in lockstep.
//!
//! Takes the events in the order of the stream. What agrees leaves nothing behind: memory grows
//! with the differences, not with the events.

use std::collections::BTreeMap;

use serde::Serialize;

/// Follows one life of a source through its stream.
#[derive(Debug)]
pub(crate) struct Merge {
    /// The position after the highest one seen.
    next: u64,
    seen: Runs,
    /// Where events lie that came out of order.
    late: BTreeMap<u64, u64>,
    places: OrderingDiff,
}

/// How the places differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OrderingDiff {
    /// Positions that the stream does not have.
    pub missing: Ranges,
    /// Positions that it has again.
    pub doubled: Vec<Doubled>,
    /// Positions that it has behind a later one.
    pub out_of_order: Vec<Late>,
}

/// An event that is in the stream again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Doubled {
    pub position: u64,
    /// Where it is for the first time.
    pub sequence: u64,
    /// Where it is again.
    pub again: u64,
}

/// An event that lies behind a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Late {
    pub position: u64,
    pub sequence: u64,
    /// The highest position before it.
    pub after: u64,
}

impl Merge {
    pub(crate) fn new() -> Self {
        Self {
            next: 1,
            seen: Runs::default(),
            late: BTreeMap::new(),
            places: OrderingDiff::default(),
        }
    }

    /// The highest position seen.
    pub(crate) fn reached(&self) -> u64 {
        self.next - 1
    }

    /// Notes that the stream has `position` at `sequence`.
    pub(crate) fn place(&mut self, position: u64, sequence: u64) {
        if position >= self.next {
            self.places.missing.push(self.next, position - 1);
            self.seen.note(position, sequence);
            self.next = position + 1;
        } else if self.places.missing.remove(position) {
            let after = self.reached();
            self.late.insert(position, sequence);
            self.places.out_of_order.push(Late {
                position,
                sequence,
                after,
            });
        } else {
            let late = self.late.get(&position).copied();
            self.places.doubled.push(Doubled {
                position,
                sequence: late.unwrap_or_else(|| self.seen.sequence(position)),
                again: sequence,
            });
        }
    }

    /// How the stream differs from an outbox that ends at `head`.
    pub(crate) fn end(mut self, head: u64) -> OrderingDiff {
        self.places.missing.push(self.next, head);
        self.places
    }
}

/// Where each position was seen first, as runs in which both count up together.
#[derive(Debug, Default)]
struct Runs(Vec<(u64, u64)>);

impl Runs {
    /// `position` must be higher than all before it.
    fn note(&mut self, position: u64, sequence: u64) {
        let goes_on = self
            .0
            .last()
            .is_some_and(|(from, first)| first + (position - from) == sequence);
        if !goes_on {
            self.0.push((position, sequence));
        }
    }

    /// Where `position`, which was noted, lies.
    fn sequence(&self, position: u64) -> u64 {
        let run = self.0.partition_point(|(from, _)| *from <= position);
        let (from, first) = self.0[run.checked_sub(1).expect("it was noted")];
        first + (position - from)
    }
}

/// Positions, as ranges: a whole stream can be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `from` to `to`, both included, higher than all that are there; nothing when `from` is
    /// above `to`.
    fn push(&mut self, from: u64, to: u64) {
        if from <= to {
            self.0.insert(from, to);
        }
    }

    /// Takes one out. False if it is not there.
    fn remove(&mut self, position: u64) -> bool {
        let range = self.0.range(..=position).next_back();
        let Some((from, to)) = range.map(|(&from, &to)| (from, to)) else {
            return false;
        };
        if to < position {
            return false;
        }
        self.0.remove(&from);
        if from < position {
            self.0.insert(from, position - 1);
        }
        if position < to {
            self.0.insert(position + 1, to);
        }
        true
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many positions there are.
    pub fn count(&self) -> u64 {
        self.iter().map(|(from, to)| to - from + 1).sum()
    }

    /// How many ranges there are.
    pub fn ranges(&self) -> u64 {
        self.0.len() as u64
    }

    /// The ranges, both ends included.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(&from, &to)| (from, to))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// The stream has these positions at the sequences 11, 12 …
    fn merged(positions: &[u64], head: u64) -> OrderingDiff {
        let mut merge = Merge::new();
        for (&position, sequence) in positions.iter().zip(11..) {
            merge.place(position, sequence);
        }
        merge.end(head)
    }

    fn missing(places: &OrderingDiff) -> Vec<u64> {
        places
            .missing
            .iter()
            .flat_map(|(from, to)| from..=to)
            .collect()
    }

    #[test]
    fn what_agrees_leaves_nothing_behind() {
        let mut merge = Merge::new();
        for position in 1..=100_000 {
            merge.place(position, position + 7);
        }
        assert_eq!((merge.seen.0.len(), merge.late.len()), (1, 0));
        assert_eq!(merge.end(100_000), OrderingDiff::default());
    }

    #[test]
    fn two_that_changed_places_are_one_out_of_order() {
        let places = merged(&[1, 2, 4, 3, 5], 5);
        let late = Late {
            position: 3,
            sequence: 14,
            after: 4,
        };
        assert_eq!(places.out_of_order, [late]);
        assert!(places.missing.is_empty() && places.doubled.is_empty());
    }

    #[test]
    fn a_copy_is_named_with_both_places() {
        let places = merged(&[1, 3, 2, 4, 2, 1, 3], 4);
        let doubled: Vec<_> = places
            .doubled
            .iter()
            .map(|doubled| (doubled.position, doubled.sequence, doubled.again))
            .collect();
        assert_eq!(doubled, [(2, 13, 15), (1, 11, 16), (3, 12, 17)]);
    }

    proptest! {
        /// Against a reading that keeps everything in memory.
        #[test]
        fn any_stream_is_read_as_by_somebody_who_remembers_everything(
            positions in vec(1_u64..30, 0..40),
            head in 0_u64..35,
        ) {
            let places = merged(&positions, head);
            let mut first = BTreeMap::new();
            let (mut doubled, mut late, mut highest) = (vec![], vec![], 0);
            for (&position, sequence) in positions.iter().zip(11..) {
                if let Some(&sequence_before) = first.get(&position) {
                    doubled.push(Doubled { position, sequence: sequence_before, again: sequence });
                } else {
                    first.insert(position, sequence);
                    if position < highest {
                        late.push(Late { position, sequence, after: highest });
                    }
                }
                highest = highest.max(position);
            }
            let have: BTreeSet<_> = first.keys().copied().collect();
            let lost: Vec<_> = (1..=head.max(highest)).filter(|p| !have.contains(p)).collect();
            prop_assert_eq!(missing(&places), lost);
            prop_assert_eq!(places.missing.count(), missing(&places).len() as u64);
            prop_assert_eq!(places.doubled, doubled);
            prop_assert_eq!(places.out_of_order, late);
        }
    }
}
