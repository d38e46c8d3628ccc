//! Metrics of this process under Prometheus' standard names. They are read from Linux, mostly from
//! `/proc/self`, which exists in a sandbox, too.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::Clock;

/// Sets the start time of the process to the current time.
pub(super) fn note_start(clock: &Clock) {
    let started = u64::try_from(clock.now_ms()).unwrap_or_default();
    metrics::gauge!("process_start_time_seconds").set(number(started) / 1000.0);
}

/// Sets the metrics of the process; a value that cannot be read stays unchanged.
pub fn note() {
    crate::lines::note();
    let spent = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    metrics::counter!("process_cpu_seconds_total").absolute(spent.try_into().unwrap_or_default());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (key, name, unit) in [
        ("Threads:", "process_threads", 1.0),
        ("VmRSS:", "process_resident_memory_bytes", 1024.0),
        ("VmSize:", "process_virtual_memory_bytes", 1024.0),
    ] {
        if let Some(value) = field(&status, key) {
            metrics::gauge!(name).set(number(value) * unit);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // One of them is the open directory itself.
        let open = open.count().saturating_sub(1);
        metrics::gauge!("process_open_fds").set(number(open as u64));
    }
    if let Some(max) = getrlimit(Resource::Nofile).current {
        metrics::gauge!("process_max_fds").set(number(max));
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn number(number: u64) -> f64 {
    number as f64
}

/// The first number in the first line of `text` that starts with `key`.
fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        // The kernel escapes the line end in a name.
        let text = "Name:\tThreads: 1\\nThreads:\t2\nState:\tR (running)\nThreads:\t9\n";
        assert_eq!(field(text, "Threads:"), Some(9));
    }

    #[test]
    fn this_process_can_be_read() {
        let handle = crate::metrics_handle();
        note();
        let text = handle.render();
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
        for name in [
            "process_threads",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            let value = field(&text.replace('.', " "), &format!("{name} "));
            assert!(value.is_some_and(|value| value > 0), "{name} in {text}");
        }
    }
}
