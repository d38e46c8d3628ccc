//! A separate thread writes the log lines, so that logging never waits for the reader of the log.
//! If the reader of a pipe hangs, a write to the full pipe blocks forever.
//!
//! Up to [`WAITING_MAX`] bytes of lines wait. Further lines are dropped and counted; their number
//! is logged once lines are written again.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// The maximum size of waiting log lines, in bytes.
const WAITING_MAX: usize = 4 * 1024 * 1024;

/// How long the end of the process waits for the remaining lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The lines of this process; global, like the subscriber that writes them.
static LINES: OnceLock<Lines> = OnceLock::new();

/// The queue of log lines.
#[derive(Debug, Default)]
struct Lines {
    waiting: Mutex<Waiting>,
    has_line: Condvar,
    is_idle: Condvar,
    dropped: AtomicU64,
    /// How many dropped lines were reported in the log.
    reported: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
}

impl Lines {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes + line.len() > WAITING_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_owned());
        drop(waiting);
        self.has_line.notify_one();
    }

    /// Passes each line to `write`, forever.
    fn write_all(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
        let mut waiting = self.lock();
        loop {
            let Some(line) = waiting.lines.pop_front() else {
                waiting.is_writing = false;
                self.is_idle.notify_all();
                let woken = self.has_line.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.bytes -= line.len();
            waiting.is_writing = true;
            drop(waiting);
            // A log without a reader (a closed pipe) must not stop the service.
            if write(&line).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            waiting = self.lock();
        }
    }

    /// Waits at most `within` until all lines are written.
    fn flush(&self, within: Duration) {
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        let idle = self
            .is_idle
            .wait_timeout_while(self.lock(), within, is_busy);
        drop(idle.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Starts the thread, which passes each line to `write`. Call once per process.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let lines = LINES.get_or_init(Lines::default);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(|| lines.write_all(write))?;
    Ok(())
}

/// Queues one line, or drops it if the queue is full.
pub fn push(line: &[u8]) {
    if let Some(lines) = LINES.get() {
        lines.push(line);
    }
}

/// Waits at most `FLUSH_MAX` for the remaining lines: the last step before the process ends.
pub fn flush() {
    if let Some(lines) = LINES.get() {
        lines.flush(FLUSH_MAX);
    }
}

/// Sets the counter of dropped lines, and logs their number once lines are written again.
pub(crate) fn note() {
    let Some(lines) = LINES.get() else { return };
    let dropped = lines.dropped.load(Ordering::Relaxed);
    metrics::counter!("headwater_log_dropped_total").absolute(dropped);
    let reported = lines.reported.load(Ordering::Relaxed);
    // A half-empty queue has room for this line and for further ones.
    if dropped > reported && lines.lock().bytes < WAITING_MAX / 2 {
        tracing::warn!(
            lines = dropped - reported,
            "log lines were dropped: the reader of the log did not keep up; check it"
        );
        lines.reported.store(dropped, Ordering::Relaxed);
    }
}

/// The writer for `tracing`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer;

impl io::Write for Writer {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn whoever_logs_does_not_wait_and_what_is_dropped_is_counted() {
        let lines = Arc::new(Lines::default());
        let (taken, written) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let thread = Arc::clone(&lines);
        std::thread::spawn(move || {
            thread.write_all(|line| {
                taken.send(line.to_owned()).unwrap();
                // The reader hangs until `release` is dropped.
                let _ = blocked.recv();
                Ok(())
            });
        });
        lines.push(b"first");
        assert_eq!(written.recv().unwrap(), b"first");
        let line = vec![b'x'; WAITING_MAX / 4];
        for _ in 0..6 {
            lines.push(&line);
        }
        assert_eq!(lines.dropped.load(Ordering::Relaxed), 2);
        lines.flush(Duration::from_millis(1));
        assert_eq!(lines.lock().lines.len(), 4, "it did not wait forever");

        drop(release);
        lines.push(b"last, if there is room");
        lines.flush(Duration::from_mins(1));
        assert!(lines.lock().lines.is_empty());
        assert!(
            written.try_iter().count() >= 4,
            "all queued lines are written"
        );
    }
}
