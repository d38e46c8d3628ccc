//! Why dead letters could not be retried or discarded.

use headwater_store::WriteError;
use sea_orm::DbErr;

use crate::projection::ApplyError;

/// Why dead letters could not be retried or discarded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No letter has this id.
    #[error("there is no dead letter {0}")]
    Unknown(u64),
    /// No letters wait under this key.
    #[error("there are no dead letters under the key `{0}`")]
    UnknownLane(String),
    /// Another letter of its key comes first.
    #[error("dead letter {id} waits behind {first}: retry or discard {first} first")]
    Waits {
        /// The requested letter.
        id: u64,
        /// The letter that comes first.
        first: u64,
    },
    /// A discard needs a reason.
    #[error("give a reason for the discard")]
    NoReason,
    /// The source does not answer for the event.
    #[error(
        "{source_name} does not answer ({why}), and dead letters are applied as its outbox has \
         them: start it and try again; the letters still wait"
    )]
    SourceAway {
        /// The source.
        source_name: String,
        /// Why not.
        why: String,
    },
    /// A rebuild is replacing the tables.
    #[error("a rebuild is taking over the tables: try again in a moment")]
    TakeOver,
    /// The database failed.
    #[error("the database cannot write it now")]
    Database(#[from] DbErr),
    /// The write failed.
    #[error("{0}")]
    Write(String),
}

impl From<WriteError<Self>> for Refusal {
    fn from(error: WriteError<Self>) -> Self {
        match error {
            WriteError::Refused(refusal) => refusal,
            other => Self::Write(other.to_string()),
        }
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Transient(error) => Self::Database(error),
            ApplyError::Poison(reason) => Self::Database(DbErr::Custom(reason)),
        }
    }
}
