//! The limits above which a value is a warning or critical.

use std::str::FromStr;
use std::time::Duration;

use terminal::output::duration;

use crate::finding::Grade;
use crate::survey::Waiting;

/// The limits above which a value is a warning or critical.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Limits {
    /// Lag of a projection in a source that is a WARNING: events, age or both
    #[arg(
        long,
        value_name = "LIMIT",
        env = "HEADWATER_CHECK_LAG_WARNING",
        default_value = "10000,1m"
    )]
    pub lag_warning: Limit,

    /// Lag of a projection in a source that is CRITICAL: events, age or both
    #[arg(
        long,
        value_name = "LIMIT",
        env = "HEADWATER_CHECK_LAG_CRITICAL",
        default_value = "100000,10m"
    )]
    pub lag_critical: Limit,

    /// Unpublished events of an outbox that are a WARNING: events, age or both
    #[arg(
        long,
        value_name = "LIMIT",
        env = "HEADWATER_CHECK_OUTBOX_WARNING",
        default_value = "10000,1m"
    )]
    pub outbox_warning: Limit,

    /// Unpublished events of an outbox that are CRITICAL: events, age or both
    #[arg(
        long,
        value_name = "LIMIT",
        env = "HEADWATER_CHECK_OUTBOX_CRITICAL",
        default_value = "100000,10m"
    )]
    pub outbox_critical: Limit,

    /// A projection with at least this many dead letters is a WARNING
    #[arg(
        long,
        value_name = "N",
        env = "HEADWATER_CHECK_DEAD_LETTERS_WARNING",
        default_value_t = 1
    )]
    pub dead_letters_warning: u64,

    /// A projection with at least this many dead letters is CRITICAL
    #[arg(
        long,
        value_name = "N",
        env = "HEADWATER_CHECK_DEAD_LETTERS_CRITICAL",
        default_value_t = 100
    )]
    pub dead_letters_critical: u64,

    /// Whether a paused projection may lag.
    #[arg(skip)]
    pub(crate) spares_paused: bool,
}

/// A number of events, an age of the oldest event, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    pub events: Option<u64>,
    pub age: Option<Duration>,
}

impl Limits {
    /// A warning if events wait longer than `max_lag`, or if there is a dead letter.
    pub(crate) fn warning(max_lag: Duration) -> Self {
        let limit = Limit {
            events: None,
            age: Some(max_lag),
        };
        Self {
            lag_warning: limit,
            outbox_warning: limit,
            dead_letters_warning: 1,
            dead_letters_critical: u64::MAX,
            spares_paused: true,
            ..Self::default()
        }
    }

    /// As `warning`, but waiting events are a failure.
    pub(crate) fn failure(max_lag: Duration) -> Self {
        let limits = Self::warning(max_lag);
        Self {
            lag_critical: limits.lag_warning,
            outbox_critical: limits.outbox_warning,
            ..limits
        }
    }
}

impl Limits {
    /// The grade of an outbox with `waiting` unpublished events.
    pub(crate) fn of_outbox(&self, waiting: Waiting) -> Option<Grade> {
        let is_passed = |limit: Limit| limit.is_passed_by(waiting);
        grade(
            is_passed(self.outbox_warning),
            is_passed(self.outbox_critical),
        )
    }

    /// The grade of a lag.
    pub(crate) fn of_lag(&self, waiting: Waiting) -> Option<Grade> {
        let is_passed = |limit: Limit| limit.is_passed_by(waiting);
        grade(is_passed(self.lag_warning), is_passed(self.lag_critical))
    }

    /// The grade of a number of dead letters.
    pub(crate) fn of_dead_letters(&self, letters: u64) -> Option<Grade> {
        let is_reached = |limit| letters > 0 && letters >= limit;
        grade(
            is_reached(self.dead_letters_warning),
            is_reached(self.dead_letters_critical),
        )
    }
}

fn grade(is_warning: bool, is_critical: bool) -> Option<Grade> {
    match (is_warning, is_critical) {
        (_, true) => Some(Grade::Fail),
        (true, false) => Some(Grade::Warn),
        (false, false) => None,
    }
}

impl Limit {
    /// Whether the limit is exceeded. An unknown number of events does not exceed it; a known age
    /// may.
    pub(crate) fn is_passed_by(self, waiting: Waiting) -> bool {
        let events = self.events.zip(waiting.events);
        events.is_some_and(|(limit, events)| events > limit)
            || self.age.is_some_and(|limit| waiting.is_older_than(limit))
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limit = Self::default();
        for part in text.split(',').map(str::trim) {
            if let Ok(events) = part.parse() {
                if limit.events.replace(events).is_some() {
                    return Err("has two numbers of events".to_owned());
                }
            } else if part.ends_with(|c: char| c.is_ascii_alphabetic()) {
                if limit.age.replace(duration(part)?).is_some() {
                    return Err("has two ages".to_owned());
                }
            } else {
                return Err("must be a number of events, an age, or both: 10000,1m30s".to_owned());
            }
        }
        Ok(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_events_an_age_or_both() {
        let limit = |text: &str| text.parse::<Limit>();
        let both = Limit {
            events: Some(500),
            age: Some(Duration::from_secs(90)),
        };
        assert_eq!(limit("500,1m30s"), Ok(both));
        assert_eq!(limit("1m30s, 500"), Ok(both));
        assert_eq!(
            limit("7"),
            Ok(Limit {
                events: Some(7),
                age: None
            })
        );
        for bad in ["", "1,2", "1s,2s", "-1", "1.5", "soon"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_above_a_limit_is_too_much_and_what_is_unknown_is_not() {
        let limit: Limit = "10,5s".parse().expect("a limit");
        let waiting = |events, seconds| Waiting { events, seconds };
        assert!(!limit.is_passed_by(waiting(Some(10), Some(5.0))));
        assert!(limit.is_passed_by(waiting(Some(11), Some(0.0))));
        assert!(limit.is_passed_by(waiting(Some(1), Some(5.1))));
        assert!(limit.is_passed_by(waiting(Some(1), None)));
        assert!(!limit.is_passed_by(waiting(Some(0), None)));
        assert!(!limit.is_passed_by(waiting(None, None)));
    }
}
