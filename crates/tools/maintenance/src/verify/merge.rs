//! Compares the order of a stream's events with the outbox.
//!
//! Takes the events in the order of the stream. Memory grows with the differences, not with the
//! events.

use std::collections::BTreeMap;

use serde::Serialize;

/// Follows one epoch of a source through its stream.
#[derive(Debug)]
pub(crate) struct Merge {
    /// The position after the highest one seen.
    next: u64,
    seen: Runs,
    /// The sequences of events that came out of order, by position.
    late: BTreeMap<u64, u64>,
    diff: OrderingDiff,
}

/// How the order of events differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OrderingDiff {
    /// Positions that the stream does not have.
    pub missing: Ranges,
    /// Positions that occur again.
    pub doubled: Vec<Doubled>,
    /// Positions that come after a later one.
    pub out_of_order: Vec<Late>,
}

/// An event that occurs again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Doubled {
    pub position: u64,
    /// The sequence of its first occurrence.
    pub sequence: u64,
    /// The sequence of the repetition.
    pub again: u64,
}

/// An event that comes after a later one.
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
            diff: OrderingDiff::default(),
        }
    }

    /// The highest position seen.
    pub(crate) fn reached(&self) -> u64 {
        self.next - 1
    }

    /// Adds the event with `position` at `sequence`.
    pub(crate) fn add(&mut self, position: u64, sequence: u64) {
        if position >= self.next {
            self.diff.missing.push(self.next, position - 1);
            self.seen.note(position, sequence);
            self.next = position + 1;
        } else if self.diff.missing.remove(position) {
            let after = self.reached();
            self.late.insert(position, sequence);
            self.diff.out_of_order.push(Late {
                position,
                sequence,
                after,
            });
        } else {
            let late = self.late.get(&position).copied();
            self.diff.doubled.push(Doubled {
                position,
                sequence: late.unwrap_or_else(|| self.seen.sequence(position)),
                again: sequence,
            });
        }
    }

    /// The differences from an outbox that ends at `head`.
    pub(crate) fn end(mut self, head: u64) -> OrderingDiff {
        self.diff.missing.push(self.next, head);
        self.diff
    }
}

/// The first sequence of each position, as runs in which both count up together.
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

    /// The sequence of `position`, which must have been noted.
    fn sequence(&self, position: u64) -> u64 {
        let run = self.0.partition_point(|(from, _)| *from <= position);
        let (from, first) = self.0[run.checked_sub(1).expect("it was noted")];
        first + (position - from)
    }
}

/// Positions as ranges: a whole stream can be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds `from..=to`, which must be above all existing ranges; nothing if `from` is above `to`.
    fn push(&mut self, from: u64, to: u64) {
        if from <= to {
            self.0.insert(from, to);
        }
    }

    /// Removes a position; false if it is not there.
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

    /// The number of positions.
    pub fn count(&self) -> u64 {
        self.iter().map(|(from, to)| to - from + 1).sum()
    }

    /// The number of ranges.
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
            merge.add(position, sequence);
        }
        merge.end(head)
    }

    fn missing(diff: &OrderingDiff) -> Vec<u64> {
        diff.missing
            .iter()
            .flat_map(|(from, to)| from..=to)
            .collect()
    }

    #[test]
    fn what_agrees_leaves_nothing_behind() {
        let mut merge = Merge::new();
        for position in 1..=100_000 {
            merge.add(position, position + 7);
        }
        assert_eq!((merge.seen.0.len(), merge.late.len()), (1, 0));
        assert_eq!(merge.end(100_000), OrderingDiff::default());
    }

    #[test]
    fn two_that_changed_places_are_one_out_of_order() {
        let diff = merged(&[1, 2, 4, 3, 5], 5);
        let late = Late {
            position: 3,
            sequence: 14,
            after: 4,
        };
        assert_eq!(diff.out_of_order, [late]);
        assert!(diff.missing.is_empty() && diff.doubled.is_empty());
    }

    #[test]
    fn a_copy_is_named_with_both_places() {
        let diff = merged(&[1, 3, 2, 4, 2, 1, 3], 4);
        let doubled: Vec<_> = diff
            .doubled
            .iter()
            .map(|doubled| (doubled.position, doubled.sequence, doubled.again))
            .collect();
        assert_eq!(doubled, [(2, 13, 15), (1, 11, 16), (3, 12, 17)]);
    }

    proptest! {
        /// Compares with an implementation that keeps everything in memory.
        #[test]
        fn any_stream_is_read_as_by_somebody_who_remembers_everything(
            positions in vec(1_u64..30, 0..40),
            head in 0_u64..35,
        ) {
            let diff = merged(&positions, head);
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
            prop_assert_eq!(missing(&diff), lost);
            prop_assert_eq!(diff.missing.count(), missing(&diff).len() as u64);
            prop_assert_eq!(diff.doubled, doubled);
            prop_assert_eq!(diff.out_of_order, late);
        }
    }
}
