//! Why a database cannot be backed up, or a copy cannot be checked or restored.

use std::error::Error as StdError;

use headwater_telemetry::BoxError;
use rusqlite::ErrorCode;

/// Why a database cannot be backed up, or a copy cannot be checked or restored. Each variant holds
/// the text, which names the file, and its causes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not the database of a service: name another one.
    #[error(transparent)]
    NotADatabase(BoxError),
    /// The file is damaged, or differs from its digest file: take another copy.
    #[error(transparent)]
    Damaged(BoxError),
    /// Another program, such as a shell, reads the database that is to be replaced: end it.
    #[error(transparent)]
    InUse(BoxError),
    /// The [`Watch`](crate::Watch) cancelled the copy: nothing of it is left.
    #[error(transparent)]
    Cancelled(BoxError),
    /// A process has the database open ([`Locked`](headwater_store::Error::Locked)), or its key
    /// file does not fit ([`KeyFile`](headwater_store::Error::KeyFile)).
    #[error(transparent)]
    Store(#[from] headwater_store::Error),
    /// Any other error of the file system or of SQLite: its causes name the file.
    #[error(transparent)]
    Other(BoxError),
}

impl Error {
    /// The variant for `error`, with all its causes.
    pub(crate) fn of(error: anyhow::Error) -> Self {
        let variant = error.chain().find_map(variant).unwrap_or(Self::Other);
        variant(error.into())
    }
}

/// The variant of an error with this cause.
fn variant(cause: &(dyn StdError + 'static)) -> Option<fn(BoxError) -> Error> {
    let code = cause.downcast_ref().map(rusqlite::Error::sqlite_error_code);
    match (code.flatten(), cause.downcast_ref()) {
        (Some(ErrorCode::NotADatabase), _) | (_, Some(Error::NotADatabase(_))) => {
            Some(Error::NotADatabase)
        }
        (Some(ErrorCode::DatabaseCorrupt), _) | (_, Some(Error::Damaged(_))) => {
            Some(Error::Damaged)
        }
        (_, Some(Error::InUse(_))) => Some(Error::InUse),
        // Only a watch interrupts a statement.
        (Some(ErrorCode::OperationInterrupted), _) | (_, Some(Error::Cancelled(_))) => {
            Some(Error::Cancelled)
        }
        _ => None,
    }
}
