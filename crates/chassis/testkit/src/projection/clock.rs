//! A clock that a test sets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use headwater::Clock;

/// A clock that stands at one time until the test moves it.
///
/// ```
/// use std::time::Duration;
/// use headwater_testkit::TestClock;
///
/// let time = TestClock::at("2026-11-22T11:00:00Z");
/// let clock = time.clock();
/// let began = clock.now_ms();
/// time.advance(Duration::from_hours(2));
/// assert_eq!(clock.now_ms() - began, 7_200_000);
/// ```
#[derive(Debug, Clone)]
pub struct TestClock {
    began_ms: u64,
    advanced_ms: Arc<AtomicU64>,
}

impl TestClock {
    /// A clock at this time, in RFC 3339.
    ///
    /// # Panics
    /// `time` is not RFC 3339, or before 1970.
    pub fn at(time: &str) -> Self {
        let began_ms = Clock::read(time).expect("a time in RFC 3339");
        Self {
            began_ms: began_ms.try_into().expect("a time after 1970"),
            advanced_ms: Arc::default(),
        }
    }

    /// Moves the time and the running time forward.
    pub fn advance(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).expect("a time within 500 million years");
        self.advanced_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// The clock, for what is tested. All clocks of one `TestClock` show its time.
    pub fn clock(&self) -> Clock {
        let (began, wall) = (
            UNIX_EPOCH + Duration::from_millis(self.began_ms),
            self.clone(),
        );
        let running = self.clone();
        Clock::from_fn(move || began + wall.advanced()).with_running(move || running.advanced())
    }

    fn advanced(&self) -> Duration {
        Duration::from_millis(self.advanced_ms.load(Ordering::SeqCst))
    }
}
