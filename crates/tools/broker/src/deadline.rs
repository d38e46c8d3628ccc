//! Waiting with a deadline.

use std::{
    io,
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// The pause between two checks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Calls `look` until it returns something or `within` has passed; calls it at least once.
pub(crate) fn poll<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Waits for `child` to end and reaps it; `None` if it still runs after `within`.
pub(crate) fn wait(child: &mut Child, within: Duration) -> io::Result<Option<ExitStatus>> {
    poll(within, || child.try_wait().transpose()).transpose()
}

/// Kills and reaps `child`; fails only if it has already been reaped.
pub(crate) fn kill(child: &mut Child) {
    let _gone = child.kill().and_then(|()| child.wait());
}
