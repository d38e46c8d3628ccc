//! What Linux says of this process, under the names that Prometheus has for it; all of it from
//! `/proc/self`, which is there in a sandbox as well.

use std::fs;

use crate::clock::Clock;

/// Ticks a second in `/proc`: the same on every Linux, whatever the kernel itself counts in.
const TICKS: u64 = 100;

/// Notes when the process was started: now.
pub(super) fn note_start(clock: &Clock) {
    let started = u64::try_from(clock.now_ms()).unwrap_or_default();
    metrics::gauge!("process_start_time_seconds").set(number(started) / 1000.0);
}

/// Sets the gauges of the process; what cannot be read is left as it was.
pub fn note() {
    crate::lines::note();
    if let Some(stat) = Stat::read() {
        metrics::counter!("process_cpu_seconds_total").absolute(stat.cpu_ticks / TICKS);
        metrics::gauge!("process_threads").set(number(stat.threads));
    }
    for (key, name) in [
        ("VmRSS:", "process_resident_memory_bytes"),
        ("VmSize:", "process_virtual_memory_bytes"),
    ] {
        if let Some(kib) = field("/proc/self/status", key) {
            metrics::gauge!(name).set(number(kib) * 1024.0);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // The one that is read is among them.
        let open = open.count().saturating_sub(1);
        metrics::gauge!("process_open_fds").set(number(open as u64));
    }
    if let Some(max) = field("/proc/self/limits", "Max open files") {
        metrics::gauge!("process_max_fds").set(number(max));
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn number(number: u64) -> f64 {
    number as f64
}

/// The first number behind `key` in a file of lines.
fn field(file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

struct Stat {
    cpu_ticks: u64,
    threads: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// The program's name comes second, in parentheses, and may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let at = |place: usize| fields.get(place - 3)?.parse().ok();
        let (user, system): (u64, u64) = (at(14)?, at(15)?);
        Some(Self {
            cpu_ticks: user + system,
            threads: at(20)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let text = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 9 0 4711 1 2";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.cpu_ticks, stat.threads), (300, 9));
    }

    #[test]
    fn this_process_can_be_read() {
        assert!(Stat::read().is_some_and(|stat| stat.threads > 0));
        assert!(field("/proc/self/status", "VmRSS:").is_some_and(|kib| kib > 0));
    }
}
