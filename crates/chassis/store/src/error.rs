//! Why a database cannot be opened, or has to be closed.

use headwater_telemetry::BoxError;
use headwater_telemetry::supervisor::Stopped;

/// Why a database cannot be opened, or has to be closed. Each variant holds the text, which names
/// the file and says what to do, and its causes. Why a write did not happen is a
/// [`WriteError`](crate::WriteError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has the database open: stop it, or use another file.
    #[error(transparent)]
    Locked(BoxError),
    /// A newer version of the program wrote the database: start that version.
    #[error(transparent)]
    Newer(BoxError),
    /// The author changed a migration that was applied: restore it, and add another.
    #[error(transparent)]
    ChangedMigration(BoxError),
    /// The database belongs to another service: give each service a file of its own.
    #[error(transparent)]
    OtherOwner(BoxError),
    /// The file is missing, but its write-ahead log exists: put the file back under its name.
    #[error(transparent)]
    Missing(BoxError),
    /// The key file is missing, damaged, too old, or of another database: put the right one back.
    #[error(transparent)]
    KeyFile(BoxError),
    /// The disk is full: free space, and try again. See
    /// [`when_there_is_room`](crate::room::when_there_is_room).
    #[error(transparent)]
    Full(BoxError),
    /// SQLite finds the file damaged: restore a backup. A read store is rebuilt without this error.
    #[error(transparent)]
    Damaged(BoxError),
    /// The writer thread ended, after a commit with an unknown outcome or another error: restart
    /// the process.
    #[error(transparent)]
    WriterStopped(BoxError),
    /// The process was asked to stop while it waited for disk space: an orderly end.
    #[error("the start was stopped")]
    Stopped(#[from] Stopped),
    /// Any other error of the file system or of SQLite: its causes name the file.
    #[error(transparent)]
    Other(BoxError),
}
