//! How far the sources are known to be, and since when: the measure of how old an answer is.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// Positions of the sources.
pub(crate) type Positions = BTreeMap<String, u64>;

/// Positions that became known within this time count as known at once.
const GRAIN: Duration = Duration::from_millis(10);

/// Remembered positions of each source; of what is older, the age is too low.
const REMEMBERED_MAX: usize = 10_000;

/// The highest known position of each source, over time.
#[derive(Debug, Default)]
pub(super) struct Heads(BTreeMap<String, VecDeque<(u64, Instant)>>);

/// What an answer lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) events: u64,
    /// How long the first of them has been known.
    pub(super) since: Duration,
}

impl Heads {
    /// Notes that `source` has reached `position`.
    pub(super) fn note(&mut self, source: &str, position: u64, now: Instant) {
        let known = match self.0.get_mut(source) {
            Some(known) => known,
            None => self.0.entry(source.to_owned()).or_default(),
        };
        match known.back_mut() {
            Some((last, _)) if *last >= position => {}
            Some((last, at)) if now.saturating_duration_since(*at) < GRAIN => *last = position,
            _ => known.push_back((position, now)),
        }
        if known.len() > REMEMBERED_MAX {
            known.pop_front();
        }
    }

    /// The highest known position of `source`; 0 if none is.
    pub(super) fn of(&self, source: &str) -> u64 {
        let last = self.0.get(source).and_then(VecDeque::back);
        last.map_or(0, |(position, _)| *position)
    }

    /// What an answer as of `as_of` lacks of what was known when it was asked for. Only the sources
    /// that it names count.
    pub(super) fn behind(&self, as_of: &Positions, asked: Instant) -> Behind {
        let mut behind = Behind::default();
        for (source, reached) in as_of {
            let known = self.0.get(source).into_iter().flatten();
            let mut missing = known.filter(|(position, at)| position > reached && *at <= asked);
            if let Some((first, since)) = missing.next() {
                let last = missing.next_back().map_or(*first, |(last, _)| *last);
                behind.events += last - reached;
                behind.since = behind.since.max(asked - *since);
            }
        }
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_lacks_what_was_known_before_it_was_asked_for() {
        let start = Instant::now();
        let mut heads = Heads::default();
        heads.note("orders", 3, start);
        heads.note("orders", 5, start + SECOND);
        heads.note("orders", 9, start + 2 * SECOND);
        heads.note("orders", 4, start + 3 * SECOND);
        heads.note("users", 7, start);
        assert_eq!(heads.of("orders"), 9);
        let as_of = |orders| Positions::from([("orders".to_owned(), orders)]);
        let at = |seconds: u32| start + seconds * SECOND;
        let nothing = Behind::default();
        assert_eq!(heads.behind(&as_of(9), at(9)), nothing);
        assert_eq!(heads.behind(&as_of(3), start), nothing, "known later");
        let (events, since) = (6, 3 * SECOND);
        assert_eq!(heads.behind(&as_of(3), at(4)), Behind { events, since });
        let (events, since) = (2, SECOND / 2);
        let soon = at(1) + SECOND / 2;
        assert_eq!(heads.behind(&as_of(3), soon), Behind { events, since });
    }
}
