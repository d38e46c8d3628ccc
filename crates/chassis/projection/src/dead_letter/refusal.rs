//! Why dead letters could not be tried again or given up.

use headwater_store::WriteError;
use sea_orm::DbErr;

use crate::projection::ApplyError;

/// Why dead letters could not be tried again or given up.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is none with this id.
    #[error("there is no dead letter {0}")]
    Unknown(u64),
    /// There are none in this lane.
    #[error("there are no dead letters in the lane `{0}`")]
    UnknownLane(String),
    /// Another one of its lane comes first.
    #[error("dead letter {id} waits behind {first}: try that one again, or discard it")]
    Waits {
        /// Which was meant.
        id: u64,
        /// Which comes first.
        first: u64,
    },
    /// A discard needs a reason.
    #[error("say why it is discarded")]
    NoReason,
    /// The source cannot be asked for the event.
    #[error(
        "{source_name} does not answer ({why}), and dead letters are applied as its outbox has \
         them: start it and try again; they wait unchanged"
    )]
    SourceAway {
        /// The source.
        source_name: String,
        /// Why not.
        why: String,
    },
    /// The tables are being replaced.
    #[error("a rebuild is taking over the tables: try again in a moment")]
    TakeOver,
    /// The database failed.
    #[error("the database cannot take it now")]
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
