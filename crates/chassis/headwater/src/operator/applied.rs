//! When a projection applied its newest events: what happened to one event can be followed in time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_event::Positions;
use headwater_projection::Progress;
use headwater_telemetry::Clock;

/// How many times are kept of each source, 16 bytes each. One stands for all events that were
/// applied together.
const TIMES_MAX: usize = 20_000;

/// The times of a projection since the service started. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct AppliedTimes(Arc<Mutex<BTreeMap<String, Times>>>);

/// The times of one source.
#[derive(Debug)]
struct Times {
    /// Up to this position, no times are known.
    unknown_to: u64,
    /// Positions, and when each was reached, in milliseconds since 1970.
    reached: VecDeque<(u64, i64)>,
}

impl AppliedTimes {
    /// Notes when the positions of `progress` change, as long as it is polled.
    pub(super) async fn note(&self, progress: &Progress, clock: &Clock) {
        let mut at = progress.now();
        self.add(&at, clock.now_ms());
        loop {
            at = progress.moved(&at).await;
            self.add(&at, clock.now_ms());
        }
    }

    fn add(&self, positions: &Positions, now_ms: i64) {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (source, position) in &positions.0 {
            match sources.get_mut(source) {
                Some(times) => times.add(*position, now_ms),
                None => {
                    sources.insert(source.clone(), Times::from(*position));
                }
            }
        }
    }

    /// When the event at `position` was applied; `None` if it was not, or before the times that are
    /// kept.
    pub(super) fn of(&self, source: &str, position: u64) -> Option<i64> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sources.get(source)?.of(position)
    }
}

impl Times {
    fn from(position: u64) -> Self {
        Self {
            unknown_to: position,
            reached: VecDeque::new(),
        }
    }

    fn add(&mut self, position: u64, now_ms: i64) {
        let last = self.reached.back().map_or(self.unknown_to, |(at, _)| *at);
        if position < last {
            // Another epoch of the source, which counts from 1 again.
            *self = Self::from(0);
        }
        if position == last {
            return;
        }
        if self.reached.len() == TIMES_MAX
            && let Some((position, _)) = self.reached.pop_front()
        {
            self.unknown_to = position;
        }
        self.reached.push_back((position, now_ms));
    }

    fn of(&self, position: u64) -> Option<i64> {
        if position <= self.unknown_to {
            return None;
        }
        let index = self.reached.partition_point(|(at, _)| *at < position);
        self.reached.get(index).map(|(_, at_ms)| *at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_time_of_the_batch_that_it_was_in() {
        let times = AppliedTimes::default();
        for (positions, now_ms) in [("a:5,b:1", 10), ("a:6,b:1", 20), ("a:9,b:1", 30)] {
            times.add(&positions.parse().unwrap(), now_ms);
        }
        let of = |position| times.of("a", position);
        assert_eq!(
            [of(5), of(6), of(7), of(9), of(10)],
            [None, Some(20), Some(30), Some(30), None]
        );
        assert_eq!((times.of("b", 1), times.of("c", 1)), (None, None));
    }

    #[test]
    fn another_epoch_begins_anew() {
        let times = AppliedTimes::default();
        for (positions, now_ms) in [("a:5", 10), ("a:9", 20), ("a:2", 30)] {
            times.add(&positions.parse().unwrap(), now_ms);
        }
        let of = |position| times.of("a", position);
        assert_eq!([of(1), of(2), of(9)], [Some(30), Some(30), None]);
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut times = Times::from(0);
        for position in 1..=TIMES_MAX as u64 + 2 {
            times.add(position, 7);
        }
        assert_eq!([times.of(2), times.of(3)], [None, Some(7)]);
        assert_eq!(times.reached.len(), TIMES_MAX);
    }
}
