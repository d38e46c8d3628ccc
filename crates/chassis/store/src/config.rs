//! Where a database is, what it may use, and what it is for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rustix::fs::{Access, access};

use crate::generation::appended;
use crate::private;

/// From when on a write to a read store is slow: a large batch of events takes its time, and
/// nobody waits behind it.
const COPY_SLOW_MS: u64 = 2_000;

/// Where the database is and what it may use.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Database")]
pub struct Config {
    /// The service's SQLite file; made when it is not there
    #[arg(long = "database", env = "HEADWATER_DATABASE", value_name = "FILE")]
    pub path: PathBuf,
    /// Writes that may wait; one more is answered with 503
    #[arg(long = "database-queue", env = "HEADWATER_DATABASE_QUEUE", default_value_t = Self::QUEUE, value_parser = at_least_one)]
    pub queue: usize,
    /// Writes that share one commit and its fsync, at most
    #[arg(long = "database-group", env = "HEADWATER_DATABASE_GROUP", default_value_t = Self::GROUP, value_parser = at_least_one)]
    pub group: usize,
    /// Connections for reading, and reads that run at the same time
    #[arg(long = "database-readers", env = "HEADWATER_DATABASE_READERS", default_value_t = Self::READERS, value_parser = at_least_one)]
    pub readers: usize,
    /// A write that takes longer than this many milliseconds is logged with its name
    #[arg(
        long = "database-slow-ms",
        env = "HEADWATER_DATABASE_SLOW_MS",
        default_value_t = Self::SLOW_MS
    )]
    pub slow_ms: u64,
    /// How large the write-ahead log may become, in MiB, before reads are held up for the moment
    /// in which it is emptied
    #[arg(
        long = "database-wal-mib",
        env = "HEADWATER_DATABASE_WAL_MIB",
        default_value_t = Self::WAL_MIB
    )]
    pub wal_mib: u64,
    /// A read that takes longer than this many milliseconds is broken off: it keeps the
    /// write-ahead log from being emptied
    #[arg(
        long = "database-read-ms",
        env = "HEADWATER_DATABASE_READ_MS",
        default_value_t = Self::READ_MS
    )]
    pub read_ms: u64,
}

impl Config {
    const QUEUE: usize = 1024;
    const GROUP: usize = 128;
    const READERS: usize = 4;
    const SLOW_MS: u64 = 100;
    const WAL_MIB: u64 = 64;
    const READ_MS: u64 = 10_000;

    /// The defaults for a database at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            queue: Self::QUEUE,
            group: Self::GROUP,
            readers: Self::READERS,
            slow_ms: Self::SLOW_MS,
            wal_mib: Self::WAL_MIB,
            read_ms: Self::READ_MS,
        }
    }

    /// The same for a read store.
    #[must_use]
    pub fn of_copy(&self) -> Self {
        Self {
            slow_ms: self.slow_ms.max(COPY_SLOW_MS),
            ..self.clone()
        }
    }

    pub(crate) fn slow(&self) -> Duration {
        Duration::from_millis(self.slow_ms)
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Makes the folder of a database that is not there yet.
pub fn make_folder(config: &Config) -> anyhow::Result<()> {
    if let Some(folder) = config.path.parent().filter(|p| !p.as_os_str().is_empty()) {
        private::make_folder(folder)
            .with_context(|| format!("make the folder {}", folder.display()))?;
    }
    Ok(())
}

/// Whether this process may write the files of a database, or make them. It opens none.
pub fn check(config: &Config) -> anyhow::Result<()> {
    let path = &config.path;
    let beside = ["-wal", "-shm", ".lock"].map(|end| appended(path, end));
    let files = [path.clone(), path.with_extension("keys")];
    for file in files.iter().chain(&beside).filter(|file| file.exists()) {
        access(file, Access::READ_OK | Access::WRITE_OK)
            .with_context(|| format!("read and write {}", file.display()))?;
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let there = folder.ancestors().find(|folder| folder.exists());
    access(there.unwrap_or(folder), Access::WRITE_OK | Access::EXEC_OK)
        .with_context(|| format!("write in the folder {}", folder.display()))
}
