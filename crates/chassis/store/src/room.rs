//! Disk space: writes are refused before the disk is full, and resume when there is space.
//!
//! `SQLITE_FULL` has a known outcome: the commit frame is the last one written, and it was not
//! written completely, so the transaction is rolled back and the process continues. A failure
//! *after* that frame, in an fsync or in growing the log's index (`SQLITE_IOERR_SHMSIZE`), has an
//! unknown outcome and ends the process. To avoid such a failure on a full disk, writes leave the
//! last `ROOM_MIN` bytes free.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater_telemetry::supervisor::Stopped;
use headwater_telemetry::{causes, systemd};
use rusqlite::ErrorCode;
use sea_orm::DbErr;
use tokio_util::sync::CancellationToken;

use crate::connection::code;
use crate::error::Error;

/// Free bytes below which no write begins. They are for the index of the write-ahead log, for
/// moving the log into the file, and for the next start.
const ROOM_MIN: u64 = 4 * 1024 * 1024;

/// How long a refusal counts if the file system reports free space, as with a quota.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// The pause between checks whether a start can continue.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// How much longer a start may take, requested at each check.
const START_EXTENSION: Duration = Duration::from_mins(1);

/// The disk space for a database file.
#[derive(Debug)]
pub(super) struct Room {
    path: PathBuf,
    refused: Mutex<Option<Instant>>,
}

impl Room {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            refused: Mutex::default(),
        }
    }

    /// Records that SQLite found the disk full.
    pub(super) fn note_refusal(&self) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused = Some(Instant::now());
    }

    /// Whether there is too little space to begin a write.
    pub(super) fn is_short(&self) -> bool {
        free(&self.path).is_some_and(|free| free < ROOM_MIN)
    }

    /// Why writes are refused, if the disk is full.
    pub(super) fn shortage(&self) -> Option<String> {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = refused.is_some_and(|refused| refused.elapsed() < REFUSED_FOR);
        (self.is_short() || is_refused).then(|| shortage(&self.path))
    }
}

fn shortage(path: &Path) -> String {
    format!(
        "disk full: {} KiB are free for {}, {} KiB are needed; free space on the disk, but delete \
         nothing in the database; the service then resumes automatically",
        free(path).unwrap_or_default() / 1024,
        path.display(),
        ROOM_MIN / 1024
    )
}

/// Free bytes of the file system of `path` for users other than root; `None` if it does not report
/// them.
pub(super) fn free(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    (found.f_blocks > 0).then(|| found.f_bavail * found.f_frsize)
}

/// Checks that a file at `path` can grow by `bytes`, and that services on its disk can then still
/// write.
///
/// # Errors
/// [`Error::Full`]: how much is free, and how much is needed.
pub fn expect(path: &Path, bytes: u64) -> Result<(), Error> {
    let needed = bytes.saturating_add(ROOM_MIN);
    match free(path) {
        Some(free) if free < needed => {
            let (free, needed, path) = (free / 1024, needed / 1024, path.display());
            let why = format!("disk full: {free} KiB are free for {path}, {needed} KiB are needed");
            Err(Error::Full(why.into()))
        }
        _ => Ok(()),
    }
}

/// Whether SQLite found the disk full: the statement or transaction was rolled back.
pub(super) fn is_full(error: &DbErr) -> bool {
    code(error) == Some(ErrorCode::DiskFull)
}

/// Whether a database could not be opened because its disk is full. No transaction is under way
/// then, so any such failure counts.
pub(super) fn failed_on_full_disk(error: &anyhow::Error, path: &Path) -> bool {
    let is_short = || {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        free(folder.unwrap_or(Path::new("."))).is_some_and(|free| free < ROOM_MIN)
    };
    error.chain().any(|cause| {
        if let Some(error) = cause.downcast_ref::<std::io::Error>() {
            let kind = error.kind();
            return matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded);
        }
        let database = cause.downcast_ref::<DbErr>().and_then(code);
        match database {
            Some(ErrorCode::DiskFull) => true,
            Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => is_short(),
            _ => false,
        }
    })
}

/// Retries `open` while the disk of `path` is too full for it, until `stop`.
///
/// # Errors
/// Any error of `open` but [`Error::Full`]; [`Error::Stopped`].
pub async fn when_there_is_room<T>(
    path: &Path,
    stop: &CancellationToken,
    open: impl AsyncFn() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut is_logged = false;
    loop {
        let error = match open().await {
            Err(Error::Full(error)) => error,
            outcome => return outcome,
        };
        let what = shortage(path);
        if !is_logged {
            tracing::error!(
                error = causes(&*error),
                "the start waits for disk space: {what}"
            );
            is_logged = true;
        }
        systemd::starting(&what, START_EXTENSION);
        let pause = tokio::time::sleep(LOOK_PAUSE);
        if stop.run_until_cancelled(pause).await.is_none() {
            return Err(Stopped.into());
        }
    }
}
