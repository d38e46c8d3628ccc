//! From where on something counts.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;
use terminal::output::duration;

use crate::survey::{Survey, Waiting};

/// From where on something counts.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Limits {
    /// Lag of a projection in a source
    #[arg(
        long,
        value_name = "LIMIT",
        env = "HEADWATER_CHECK_LAG_WARNING",
        default_value = "10000,1m"
    )]
    pub lag_warning: Limit,

    /// The same
    #[arg(
        long,
        value_name = "LIMIT",
        env = "HEADWATER_CHECK_LAG_CRITICAL",
        default_value = "100000,10m"
    )]
    pub lag_critical: Limit,

    /// What of an outbox is not in its stream
    #[arg(
        long,
        value_name = "LIMIT",
        env = "HEADWATER_CHECK_OUTBOX_WARNING",
        default_value = "10000,1m"
    )]
    pub outbox_warning: Limit,

    /// The same
    #[arg(
        long,
        value_name = "LIMIT",
        env = "HEADWATER_CHECK_OUTBOX_CRITICAL",
        default_value = "100000,10m"
    )]
    pub outbox_critical: Limit,

    /// Dead letters of a projection, this many or more
    #[arg(
        long,
        value_name = "N",
        env = "HEADWATER_CHECK_DEAD_LETTERS_WARNING",
        default_value_t = 1
    )]
    pub dead_letters_warning: u64,

    /// The same
    #[arg(
        long,
        value_name = "N",
        env = "HEADWATER_CHECK_DEAD_LETTERS_CRITICAL",
        default_value_t = 100
    )]
    pub dead_letters_critical: u64,
}

/// A number of events, an age of the oldest, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    pub events: Option<u64>,
    pub age: Option<Duration>,
}

impl Limit {
    /// Whether so much is too much. What nobody can tell is not.
    pub(super) fn is_passed_by(self, waiting: Waiting) -> bool {
        let events = self.events.zip(waiting.events);
        let age = self.age.zip(waiting.seconds);
        events.is_some_and(|(limit, events)| events > limit)
            || age.is_some_and(|(limit, seconds)| seconds > limit.as_secs_f64())
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

/// What is measured, by name.
#[derive(Debug, Serialize)]
pub(super) struct Values {
    /// By projection and source.
    pub(super) lags: Vec<(String, Waiting)>,
    /// By source.
    pub(super) outboxes: Vec<(String, Waiting)>,
    /// By projection.
    pub(super) dead_letters: Vec<(String, u64)>,
}

impl Values {
    pub(super) fn of(survey: &Survey) -> Self {
        let lags = survey.projections.iter().flat_map(|projection| {
            let sources = projection.sources.iter();
            sources.map(move |(source, lag)| (format!("{} {source}", projection.name), lag.waiting))
        });
        let outboxes = survey.relays.iter();
        let letters = survey.projections.iter();
        Self {
            lags: lags.collect(),
            outboxes: outboxes
                .map(|relay| (relay.source.clone(), relay.depth))
                .collect(),
            dead_letters: letters
                .map(|projection| (projection.name.clone(), projection.dead_letters))
                .collect(),
        }
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
        assert!(!limit.is_passed_by(waiting(None, None)));
    }
}
