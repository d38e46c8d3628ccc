//! The time and new ids, as an argument: services take a [`Clock`], and tests set theirs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use uuid::{NoContext, Timestamp, Uuid};

/// Supplies the time, and ids that sort by time.
#[derive(Clone)]
pub struct Clock {
    now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
    running: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// The machine's clock.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    pub fn system() -> Self {
        Self::from_fn(SystemTime::now)
    }

    /// A clock that shows the time that `now` returns.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        let made = Instant::now();
        Self {
            now: Arc::new(now),
            running: Arc::new(move || made.elapsed()),
        }
    }

    /// This clock, with `running` as its running time.
    #[must_use]
    pub fn with_running(self, running: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self {
            running: Arc::new(running),
            ..self
        }
    }

    /// The current time. It jumps if the machine's clock is set.
    pub fn now(&self) -> SystemTime {
        (self.now)()
    }

    /// The time since this clock was made, in milliseconds. It never jumps.
    pub fn running_ms(&self) -> i64 {
        i64::try_from((self.running)().as_millis()).expect("a time within 290 million years")
    }

    /// The current time in milliseconds since 1970, as stored in the databases.
    pub fn now_ms(&self) -> i64 {
        i64::try_from(self.since_1970().as_millis()).expect("a time within 290 million years")
    }

    /// Formats milliseconds since 1970 as RFC 3339: `2026-11-22T11:00:00.250Z`.
    pub fn text(at_ms: i64) -> String {
        let nanos = at_ms.rem_euclid(1000) * 1_000_000;
        let time = prost_types::Timestamp {
            seconds: at_ms.div_euclid(1000),
            nanos: i32::try_from(nanos).expect("less than a second"),
        };
        time.to_string()
    }

    /// Parses RFC 3339, such as the result of [`text`](Self::text).
    pub fn read(text: &str) -> Option<i64> {
        let time: prost_types::Timestamp = text.parse().ok()?;
        Some(time.seconds * 1000 + i64::from(time.nanos) / 1_000_000)
    }

    /// A new id: `UUIDv7`, so that ids made later sort later.
    pub fn new_id(&self) -> Uuid {
        let since_1970 = self.since_1970();
        Uuid::new_v7(Timestamp::from_unix(
            NoContext,
            since_1970.as_secs(),
            since_1970.subsec_nanos(),
        ))
    }

    fn since_1970(&self) -> Duration {
        self.now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("the clock is set after 1970")
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
        assert_eq!(Clock::text(1_795_345_200_250), "2026-11-22T11:00:00.250Z");
        assert_eq!(
            Clock::read("2026-11-22T11:00:00.250Z"),
            Some(1_795_345_200_250)
        );
        assert_eq!(Clock::read("yesterday"), None);
    }
}
