//! Waiting for a state, never for a time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// The timeout of everything that must happen: far longer than anything takes, even on a slow
/// machine, so that only what never happens fails.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The pause between two calls of `look`.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Waits until `look` returns `Ok`.
///
/// `look` checks a state, not a transition. Its error is the state so far.
///
/// ```
/// # use headwater_testkit::eventually;
/// # use std::sync::atomic::{AtomicU32, Ordering};
/// # let applied = AtomicU32::new(0);
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let third = eventually("three events to be applied", async || {
///     let now = applied.fetch_add(1, Ordering::Relaxed);
///     if now >= 3 { Ok(now) } else { Err(now) }
/// });
/// assert_eq!(third.await, 3);
/// # });
/// ```
///
/// # Panics
/// `look` fails for longer than [`PATIENCE`]. The message has its last error.
pub async fn eventually<T, S: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, S>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// As [`eventually`], with another timeout.
pub async fn eventually_within<T, S: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let wait = Wait::new(patience);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(status) => wait.check(what, &status),
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// As [`eventually`], without a runtime: blocks the thread.
pub fn eventually_blocking<T, S: Debug>(what: &str, mut look: impl FnMut() -> Result<T, S>) -> T {
    let wait = Wait::new(PATIENCE);
    loop {
        match look() {
            Ok(found) => return found,
            Err(status) => wait.check(what, &status),
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// `found` if it equals `wanted`. For [`eventually`] on one value.
///
/// # Errors
/// `found`, if it is another value.
pub fn is<T: PartialEq>(found: T, wanted: &T) -> Result<T, T> {
    if found == *wanted {
        Ok(found)
    } else {
        Err(found)
    }
}

struct Wait {
    patience: Duration,
    began: Instant,
}

impl Wait {
    fn new(patience: Duration) -> Self {
        Self {
            patience,
            began: Instant::now(),
        }
    }

    /// Panics once `patience` is over.
    fn check<S: Debug>(&self, what: &str, status: &S) {
        let Self { patience, began } = self;
        assert!(
            began.elapsed() < *patience,
            "waited {patience:?} for {what}; last seen: {status:?}"
        );
    }
}
