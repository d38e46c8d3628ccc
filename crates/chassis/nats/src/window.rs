//! The window: how many events to request at a time, about what the link carries in a quarter of a
//! second.
//!
//! Requested events queue up at the slowest point of the link, and everything else on the link
//! waits behind them: other sources, heartbeats, an operator's request. So a reader requests only
//! as much as keeps the link busy. The window is the measured rate of arriving bytes times a target
//! time. While the round trip limits the rate, the window grows, because the target is at least two
//! round trips. Once the link is full, the window stays at the target. If the link gets slower, the
//! window shrinks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The target time for the requested events if the round trip is short: long enough that a short
/// delay of the reader does not leave the link idle.
const TARGET_MIN: Duration = Duration::from_millis(250);

/// The target time if the round trip is long. On a busy link, the measured round trip is too long;
/// this limits the error.
const TARGET_MAX: Duration = Duration::from_secs(2);

/// The window of a feed in bytes: initial, minimum and maximum. With the minimum, three sources
/// share 64 kB/s and delay each other by less than half a second.
const BYTES_FIRST: usize = 16 * 1024;
const BYTES_MIN: usize = 8 * 1024;
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The maximum number of events in a window, well below the number at which the client drops events
/// (65,536).
const EVENTS_MAX: usize = 20_000;

/// The assumed size of an event before the first one has arrived, in bytes.
const EVENT_BYTES_FIRST: usize = 512;

/// The round trip of a connection that several feeds share.
#[derive(Debug)]
pub struct Link {
    round_trip_us: AtomicU64,
}

impl Default for Link {
    fn default() -> Self {
        Self::new()
    }
}

impl Link {
    /// A link without measurements.
    pub fn new() -> Self {
        Self {
            round_trip_us: AtomicU64::new(u64::MAX),
        }
    }

    /// Records the duration of a request. A shorter one counts at once, because only a short round
    /// trip explains it. A longer one counts gradually, because a busy link also makes it longer.
    pub(super) fn note_round_trip(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let before = self.round_trip_us.load(Ordering::Relaxed);
        let now = if took < before {
            took
        } else {
            before + (took - before) / 8
        };
        self.round_trip_us.store(now, Ordering::Relaxed);
    }

    fn target(&self) -> Duration {
        let round_trip = Duration::from_micros(self.round_trip_us.load(Ordering::Relaxed));
        round_trip.saturating_mul(2).clamp(TARGET_MIN, TARGET_MAX)
    }
}

/// The window of one feed.
#[derive(Debug)]
pub struct Window {
    target: Duration,
    bytes: usize,
    /// The mean size of an event; recent ones count most.
    event_bytes: usize,
    /// The bytes received since the measurement began.
    received: usize,
    since: Instant,
}

impl Window {
    /// The window of one reader on `link`.
    pub fn new(link: &Link, now: Instant) -> Self {
        Self {
            target: link.target(),
            bytes: BYTES_FIRST,
            event_bytes: EVENT_BYTES_FIRST,
            received: 0,
            since: now,
        }
    }

    /// How many events may be under way: requested but not yet received.
    pub(super) fn events(&self) -> usize {
        (self.bytes / self.event_bytes).clamp(1, EVENTS_MAX)
    }

    /// The window in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The bytes to allow for `events`: enough unless they are much larger than earlier ones.
    pub(super) fn bytes_of(&self, events: usize) -> usize {
        2 * events * self.event_bytes + BYTES_MIN
    }

    /// Records an event of `bytes`, and adjusts the window once a whole window has arrived.
    pub(super) fn note_event(&mut self, bytes: usize, now: Instant) {
        let mean = self.event_bytes.saturating_mul(15).saturating_add(bytes) / 16;
        // Rounded down, the mean would never reach a size that is slightly above it.
        self.event_bytes = if bytes > self.event_bytes {
            mean + 1
        } else {
            mean.max(1)
        };
        self.received += bytes;
        if self.received >= self.bytes {
            self.adjust(now.saturating_duration_since(self.since));
            self.measure_from(now);
        }
    }

    /// Records that events are larger than expected: not even the first of a request fitted.
    pub(super) fn note_larger(&mut self) {
        self.event_bytes = self.event_bytes.saturating_mul(2);
    }

    /// Restarts the measurement: while no events wait at the server, the link does not limit the
    /// rate.
    pub(super) fn measure_from(&mut self, now: Instant) {
        self.received = 0;
        self.since = now;
    }

    fn adjust(&mut self, elapsed: Duration) {
        let elapsed = elapsed.max(Duration::from_micros(1));
        let carried = self.received as u128 * self.target.as_micros() / elapsed.as_micros();
        let carried = usize::try_from(carried).unwrap_or(usize::MAX);
        let bytes = if carried > self.bytes {
            carried.min(self.bytes * 2)
        } else {
            // Shrink halfway: a pause of this process also looks like a slower link.
            usize::midpoint(carried, self.bytes)
        };
        self.bytes = bytes.clamp(BYTES_MIN, BYTES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: usize = 300;

    /// A link of `rate` bytes per second with a round trip, and the window of a reader.
    struct Simulation {
        window: Window,
        now: Instant,
        rate: u32,
        round_trip: Duration,
    }

    impl Simulation {
        fn new(rate: u32, round_trip: Duration) -> Self {
            let (link, now) = (Link::new(), Instant::now());
            link.note_round_trip(round_trip);
            Self {
                window: Window::new(&link, now),
                now,
                rate,
                round_trip,
            }
        }

        /// Receives `windows` windows of events, each as fast as link and round trip allow.
        fn receive(&mut self, windows: usize) -> &mut Self {
            for _ in 0..windows {
                let bytes = u32::try_from(self.window.bytes).expect("a window");
                let carrying = Duration::from_secs(1) * bytes / self.rate;
                let took = carrying.max(self.round_trip);
                let events = self.window.bytes.div_ceil(EVENT);
                for _ in 0..events {
                    self.now += took / u32::try_from(events).expect("events");
                    self.window.note_event(EVENT, self.now);
                }
            }
            self
        }

        /// How long the link takes for a window.
        fn queue(&self) -> Duration {
            let bytes = u32::try_from(self.window.bytes).expect("a window");
            Duration::from_secs(1) * bytes / self.rate
        }
    }

    #[test]
    fn a_window_fills_a_link_of_any_rate_and_leaves_no_more_than_its_target_waiting() {
        for rate in [64_000, 250_000, 1_000_000, 10_000_000] {
            for round_trip in [1, 50, 200, 400].map(Duration::from_millis) {
                let mut link = Simulation::new(rate, round_trip);
                link.receive(60);
                let queue = link.queue();
                let target = (2 * round_trip).max(TARGET_MIN);
                assert!(queue >= round_trip, "{rate} B/s, {round_trip:?}: {queue:?}");
                let floor = Duration::from_secs(1) * u32::try_from(BYTES_MIN).expect("") / rate;
                assert!(
                    queue <= target.max(floor) * 11 / 10,
                    "{rate} B/s, {round_trip:?}: {queue:?}"
                );
            }
        }
    }

    #[test]
    fn a_window_shrinks_and_grows_with_its_link() {
        let mut link = Simulation::new(10_000_000, Duration::from_millis(1));
        link.receive(30);
        let fast = link.window.bytes;
        link.rate = 100_000;
        link.receive(12);
        assert!(
            link.queue() < Duration::from_millis(400),
            "{:?}",
            link.queue()
        );
        link.rate = 10_000_000;
        link.receive(30);
        assert!(link.window.bytes * 10 > fast * 9, "{}", link.window.bytes);
    }

    #[test]
    fn a_round_trip_is_the_shortest_one_and_follows_a_longer_one_slowly() {
        let link = Link::new();
        link.note_round_trip(Duration::from_millis(400));
        assert_eq!(link.target(), Duration::from_millis(800));
        link.note_round_trip(Duration::from_millis(100));
        assert_eq!(link.target(), TARGET_MIN);
        link.note_round_trip(Duration::from_millis(900));
        assert_eq!(link.target(), Duration::from_millis(400));
    }

    #[test]
    fn events_are_counted_by_their_mean_size() {
        let mut link = Simulation::new(1_000_000, Duration::from_millis(1));
        link.receive(40);
        assert_eq!(link.window.event_bytes, EVENT);
        assert_eq!(link.window.events(), link.window.bytes / EVENT);
        link.window.note_larger();
        assert_eq!(link.window.event_bytes, 2 * EVENT);
    }
}
