//! How an effect runs.

use std::time::Duration;

/// The pauses before the attempts after the first: about 28 hours in all.
const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(10),
];

/// How an effect runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// With which event it begins when it is started for the first time with a source.
    pub start: Start,
    /// The pauses before the attempts after the first. After the last, the intent is a dead letter.
    pub schedule: Vec<Duration>,
    /// How many intents are performed at the same time.
    pub at_once: usize,
    /// How long one attempt may take. One that takes longer is dropped, and counts as failed.
    pub timeout: Duration,
    /// For how long all attempts may fail. Then the effect is paused until an operator resumes it.
    /// The time begins again when no intent that failed is left to be tried again.
    pub switch_off_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            start: Start::Now,
            schedule: SCHEDULE.to_vec(),
            at_once: 8,
            timeout: Duration::from_secs(30),
            switch_off_after: Duration::from_hours(5 * 24),
        }
    }
}

/// With which event an effect begins when it is started for the first time with a source. Has no
/// influence later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first event that its source records after the start, by the source's clock.
    #[default]
    Now,
    /// With the first event of the source.
    Beginning,
}
