//! Room on the disk: writes are refused before there is none, and go on when there is some.
//!
//! `SQLITE_FULL` has a known outcome: the frame that commits is the last one written, and it was
//! not written whole, so the transaction is rolled back, and the process goes on. What can fail
//! *after* that frame, an fsync or growing the log's index (`SQLITE_IOERR_SHMSIZE`), has an unknown
//! one and ends the process. So that a full disk does not get there, the last `ROOM_MIN` are left
//! alone.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use headwater_telemetry::supervisor::Stopped;
use headwater_telemetry::systemd;
use rusqlite::ErrorCode;
use sea_orm::DbErr;
use tokio_util::sync::CancellationToken;

use crate::connection::code;

/// Free bytes below which no write begins. What is left is for the index of the write-ahead log,
/// for moving the log into the file, and for the next start.
const ROOM_MIN: u64 = 4 * 1024 * 1024;

/// How long a refusal counts where the file system says that it has room, as with a quota.
const REFUSED_FOR: Duration = Duration::from_secs(10);

/// How often it is looked whether a start can go on.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// By how much longer a start may take, each time that it waits.
const START_EXTENSION: Duration = Duration::from_mins(1);

/// The room for a database file.
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

    /// Notes that SQLite found none.
    pub(super) fn note_refusal(&self) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused = Some(Instant::now());
    }

    /// Whether a write may begin.
    pub(super) fn is_short(&self) -> bool {
        free(&self.path).is_some_and(|free| free < ROOM_MIN)
    }

    /// What is short, if writes are refused for it.
    pub(super) fn shortage(&self) -> Option<String> {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let is_refused = refused.is_some_and(|refused| refused.elapsed() < REFUSED_FOR);
        (self.is_short() || is_refused).then(|| shortage(&self.path))
    }
}

fn shortage(path: &Path) -> String {
    format!(
        "disk full: {} KiB are free for {}, and {} are needed; make room on the disk, delete \
         nothing in the database: it goes on by itself",
        free(path).unwrap_or_default() / 1024,
        path.display(),
        ROOM_MIN / 1024
    )
}

/// Bytes that the file system of `path` has left for those who are not root; none where it does
/// not say.
pub(super) fn free(path: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(path).ok()?;
    (found.f_blocks > 0).then(|| found.f_bavail * found.f_frsize)
}

/// Whether SQLite found no room: whatever it was about was rolled back.
pub(super) fn is_full(error: &DbErr) -> bool {
    code(error) == Some(ErrorCode::DiskFull)
}

/// Whether a database could not be opened because its disk is full. Nothing is under way then, so
/// that any way of failing for it will do.
pub(super) fn kept_it_closed(error: &anyhow::Error, path: &Path) -> bool {
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

/// Does `open` again and again while the disk of `path` is too full for it, until `stop`.
///
/// # Errors
/// What `open` returns otherwise; [`Stopped`].
pub async fn when_there_is_room<T>(
    path: &Path,
    stop: &CancellationToken,
    open: impl AsyncFn() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let mut is_told = false;
    loop {
        let error = match open().await {
            Err(error) if kept_it_closed(&error, path) => error,
            outcome => return outcome,
        };
        let what = shortage(path);
        if !is_told {
            tracing::error!(
                error = format!("{error:#}"),
                "the start waits for room: {what}"
            );
            is_told = true;
        }
        systemd::starting(&what, START_EXTENSION);
        let pause = tokio::time::sleep(LOOK_PAUSE);
        if stop.run_until_cancelled(pause).await.is_none() {
            return Err(Stopped.into());
        }
    }
}
