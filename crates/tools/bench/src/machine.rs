//! The machine that a figure was measured on. Absolute numbers mean nothing without it.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use headwater::Clock;
use serde::{Deserialize, Serialize};

/// The machine, its programs, and the durability settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    memory_gib: u64,
    kernel: String,
    /// The file system of the folder for databases and streams.
    filesystem: String,
    rust: String,
    nats_server: String,
    sqlite: String,
    /// What a commit or an acknowledgement guarantees.
    durability: String,
    /// The commit of Headwater, with `+` if there are changes.
    commit: String,
    /// The time of the measurement in RFC 3339.
    measured_at: String,
    optimised: bool,
}

impl Machine {
    /// Describes this machine; the measurements will use `folder`.
    pub(crate) fn look(folder: &Path) -> anyhow::Result<Self> {
        let nats_server = broker::find(&|_| {}).context("find nats-server")?;
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu: field(&text("/proc/cpuinfo"), "model name"),
            memory_gib: memory_gib(&text("/proc/meminfo")),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            filesystem: filesystem(&text("/proc/self/mounts"), folder),
            rust: output_of("rustc", &["--version"]),
            nats_server: nats_server.version.to_string(),
            sqlite: rusqlite::version().to_owned(),
            durability: "WAL, synchronous=FULL; nats-server sync_interval: always".to_owned(),
            commit: output_of("git", &["describe", "--always", "--dirty=+", "--exclude=*"]),
            measured_at: shop_events::timestamp(Clock::system().now_ms()).to_string(),
            optimised: cfg!(not(debug_assertions)),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = self.measured_at.split('T').next().unwrap_or_default();
        let build = if self.optimised {
            ""
        } else {
            ", not optimised"
        };
        write!(
            f,
            "{}; {} cores ({}), ",
            self.durability, self.cores, self.cpu
        )?;
        write!(f, "{} GiB, Linux {}, ", self.memory_gib, self.kernel)?;
        write!(f, "{}, {}{build}, ", self.filesystem, self.rust)?;
        write!(
            f,
            "nats-server {}, SQLite {}; ",
            self.nats_server, self.sqlite
        )?;
        write!(f, "commit {}, {day}", self.commit)
    }
}

/// The value of an unknown property.
const UNKNOWN: &str = "unknown";

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of a `name : value` line, as in `/proc/cpuinfo`.
fn field(text: &str, name: &str) -> String {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(key, _)| key.trim() == name);
    value.map_or(UNKNOWN, |(_, value)| value.trim()).to_owned()
}

fn memory_gib(meminfo: &str) -> u64 {
    let total = field(meminfo, "MemTotal");
    let kib = total.trim_end_matches(" kB").parse::<u64>();
    kib.map_or(0, |kib| (kib + (1 << 19)) >> 20)
}

/// The type of the innermost mount that contains `folder`.
fn filesystem(mounts: &str, folder: &Path) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    let around = mounts.filter(|(mount, _)| folder.starts_with(mount));
    let innermost = around.max_by_key(|(mount, _)| mount.components().count());
    innermost.map_or(UNKNOWN, |(_, kind)| kind).to_owned()
}

/// The output of a program, or `unknown`.
fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(crate::args::workspace())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => UNKNOWN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_counts() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(filesystem(mounts, Path::new("/tmp/x")), "tmpfs");
        assert_eq!(filesystem(mounts, Path::new("/tmpx")), "ext4");
        assert_eq!(filesystem("", Path::new("/")), "unknown");
    }

    #[test]
    fn memory_is_rounded_to_what_was_bought() {
        assert_eq!(memory_gib("MemTotal:       24605208 kB\n"), 23);
        assert_eq!(memory_gib(""), 0);
        assert_eq!(
            field("model name\t: Some CPU: fast\n", "model name"),
            "Some CPU: fast"
        );
    }
}
