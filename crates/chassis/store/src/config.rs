//! The configuration of a database: its path and limits.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::Resettable;
use clap::{Args as _, Command, FromArgMatches as _};
use headwater_telemetry::duration;
use rustix::fs::{Access, access};

use crate::error::Error;
use crate::generation::appended;
use crate::{private, reason};

/// A write to a read store counts as slow after this long. A large batch of events takes time,
/// and no client waits behind it.
const COPY_SLOW_WRITE: Duration = Duration::from_secs(2);

/// The path and the limits of a database.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Database")]
pub struct Config {
    /// The service's SQLite file; created if missing
    #[arg(long = "database", env = "HEADWATER_DATABASE", value_name = "FILE")]
    pub path: PathBuf,
    /// Maximum number of waiting writes; further ones are answered with 503
    #[arg(long = "database-queue", env = "HEADWATER_DATABASE_QUEUE", default_value_t = 1024, value_parser = at_least_one)]
    pub queue: usize,
    /// Maximum number of writes that share one commit and its fsync
    #[arg(long = "database-group", env = "HEADWATER_DATABASE_GROUP", default_value_t = 128, value_parser = at_least_one)]
    pub group: usize,
    /// Number of connections for reading, and so of reads that run at the same time
    #[arg(long = "database-readers", env = "HEADWATER_DATABASE_READERS", default_value_t = 4, value_parser = at_least_one)]
    pub readers: usize,
    /// Time after which a write is logged as slow, with its name
    #[arg(
        long = "database-slow-write",
        env = "HEADWATER_DATABASE_SLOW_WRITE",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "100ms"
    )]
    pub slow_write: Duration,
    /// Size of the write-ahead log, in MiB, above which reads are delayed briefly while it is
    /// emptied
    #[arg(
        long = "database-wal-mib",
        env = "HEADWATER_DATABASE_WAL_MIB",
        default_value_t = 64
    )]
    pub wal_mib: u64,
    /// Time after which a read is cancelled, because it keeps the write-ahead log from being
    /// truncated
    #[arg(
        long = "database-read-timeout",
        env = "HEADWATER_DATABASE_READ_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "10s"
    )]
    pub read_timeout: Duration,
    /// Folder for the backups that operators start over NATS [default: `backups` next to the
    /// database]
    #[arg(
        long = "database-backups",
        env = "HEADWATER_DATABASE_BACKUPS",
        value_name = "FOLDER"
    )]
    pub backups: Option<PathBuf>,
    /// Number of these backups to keep; older ones are removed
    #[arg(long = "database-backups-keep", env = "HEADWATER_DATABASE_BACKUPS_KEEP", value_name = "COPIES", default_value_t = 7, value_parser = at_least_one)]
    pub backups_keep: usize,
}

impl Config {
    /// The defaults for a database at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let command = Self::augment_args(Command::new("defaults"));
        let command = command.mut_args(|arg| arg.env(Resettable::Reset));
        let matches = command.get_matches_from(["defaults", "--database", "x"]);
        Self {
            path: path.into(),
            ..Self::from_arg_matches(&matches).expect("every other flag has a default")
        }
    }

    /// The folder for backups that operators start over NATS.
    pub fn backups(&self) -> PathBuf {
        let beside = || self.path.with_file_name("backups");
        self.backups.clone().unwrap_or_else(beside)
    }

    /// This configuration, adapted to a read store.
    #[must_use]
    pub fn of_copy(&self) -> Self {
        Self {
            slow_write: self.slow_write.max(COPY_SLOW_WRITE),
            ..self.clone()
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Creates the folder of the database if it is missing.
///
/// # Errors
/// [`Error::Full`]; or the folder cannot be created.
pub fn make_folder(config: &Config) -> Result<(), Error> {
    let Some(folder) = config.path.parent().filter(|p| !p.as_os_str().is_empty()) else {
        return Ok(());
    };
    private::make_folder(folder)
        .with_context(|| format!("create the folder {}", folder.display()))
        .map_err(|error| reason::of(error, &config.path))
}

/// Checks that this process may write or create the files of a database. Opens none of them.
///
/// # Errors
/// It may not.
pub fn check(config: &Config) -> Result<(), Error> {
    check_access(config).map_err(|error| reason::of(error, &config.path))
}

fn check_access(config: &Config) -> anyhow::Result<()> {
    let path = &config.path;
    let companions = ["-wal", "-shm", ".lock"].map(|end| appended(path, end));
    let files = [path.clone(), path.with_extension("keys")];
    for file in files.iter().chain(&companions).filter(|file| file.exists()) {
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
