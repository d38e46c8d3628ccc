//! What breaks off a read: the clock, or the steps of a bounded statement.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// The number of steps of SQLite's virtual machine between two checks: some 10 µs, but up to
/// 60 ms of a search in FTS5.
const STEPS: u32 = 1_000;

/// The limit of a reader's connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ReadLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    longest: Duration,
    /// When the current read began.
    began: Mutex<Instant>,
    /// How many more checks the current statement may reach; `u32::MAX` without a bound.
    checks_left: AtomicU32,
}

impl ReadLimit {
    /// `longest`: how long a read may take.
    pub(super) fn new(longest: Duration) -> Self {
        Self(Arc::new(Shared {
            longest,
            began: Mutex::new(Instant::now()),
            checks_left: AtomicU32::new(u32::MAX),
        }))
    }

    /// A read begins.
    pub(super) fn restart(&self) {
        *self.0.began.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Applies it to the statements of `connection`.
    pub(super) fn watch(&self, connection: &Connection) -> rusqlite::Result<()> {
        let limit = self.clone();
        let every = i32::try_from(STEPS).expect("a small constant");
        connection.progress_handler(every, Some(move || limit.is_reached()))
    }

    fn is_reached(&self) -> bool {
        let left = &self.0.checks_left;
        let one_less = |left: u32| (left < u32::MAX).then(|| left.saturating_sub(1));
        let order = Ordering::Relaxed;
        let is_over = left.fetch_update(order, order, one_less) == Ok(0);
        let began = self.0.began.lock().unwrap_or_else(PoisonError::into_inner);
        is_over || began.elapsed() > self.0.longest
    }

    /// The result of `work`, whose statements may take about that many steps in all; and whether they
    /// took as many.
    pub(super) fn within<T>(&self, steps: u32, work: impl FnOnce() -> T) -> (T, bool) {
        let left = &self.0.checks_left;
        left.store(steps / STEPS + 1, Ordering::Relaxed);
        let result = work();
        (result, left.swap(u32::MAX, Ordering::Relaxed) == 0)
    }
}
