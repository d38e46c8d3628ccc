//! Waiting for a state, never for a time.

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// How long anything that must come may take: far longer than it does, so that only what never
/// comes fails, also on a slow machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// Waits until `look` gives what was waited for.
///
/// It looks at a level, not for an edge: whatever `look` sees as an error is the status so far.
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
/// When it does not come within [`PATIENCE`], with what was seen last.
pub async fn eventually<T, S: Debug>(what: &str, look: impl AsyncFnMut() -> Result<T, S>) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// As [`eventually`], for what takes longer.
///
/// # Panics
/// When it does not come within `patience`, with what was seen last.
pub async fn eventually_within<T, S: Debug>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, S>,
) -> T {
    let wait = Wait::new(patience);
    loop {
        match look().await {
            Ok(found) => return found,
            Err(status) => wait.goes_on(what, &status),
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// As [`eventually`], on a thread of the test.
///
/// # Panics
/// When it does not come within [`PATIENCE`], with what was seen last.
pub fn eventually_blocking<T, S: Debug>(what: &str, mut look: impl FnMut() -> Result<T, S>) -> T {
    let wait = Wait::new(PATIENCE);
    loop {
        match look() {
            Ok(found) => return found,
            Err(status) => wait.goes_on(what, &status),
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// `found` if it is what was `wanted`: for a look at one value.
///
/// # Errors
/// What was found instead.
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

    fn goes_on<S: Debug>(&self, what: &str, status: &S) {
        let Self { patience, began } = self;
        assert!(
            began.elapsed() < *patience,
            "waited {patience:?} for {what}; last seen: {status:?}"
        );
    }
}
