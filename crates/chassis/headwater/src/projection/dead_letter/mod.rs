//! Dead letters: events that a projection could not apply, and what a person does with them.
//!
//! A letter waits in a **lane**: its event's key. Only the first of a lane is at fault; those
//! behind it wait, so that the key's events are applied in their order, whenever that is. So it is
//! always the first of a lane that is tried again, and after it those that wait, up to the next one
//! that fails. An event whose key cannot be read has a lane for itself: it holds back no other.
//!
//! What a letter holds is what was delivered, which a person may have made or a consumer may have
//! cut. So before it is applied it is compared with its source's outbox, at its position, and gets
//! what that has. An event without a position is in no outbox, and the outbox of a former life is
//! gone: these are applied as they are.

mod carry;
mod check;
mod letters;
mod park;
mod retry;

use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

use super::ApplyError;
use crate::database::WriteError;
use crate::outbox::unsigned;

pub(crate) use carry::{carry_over, only_in};
pub(crate) use check::in_outbox;
pub(crate) use letters::{Table, at_fault, find, left, list};
pub(crate) use park::{
    FirstParked, Identity, Parked, blocked_lanes, count, discarded, first_parked, park,
};
pub(crate) use retry::{Which, discard, retry};

/// Why dead letters could not be tried again or given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no dead letter {0}")]
    Unknown(u64),
    #[error("there are no dead letters in the lane `{0}`")]
    UnknownLane(String),
    #[error("dead letter {id} waits behind {first}: try that one again, or discard it")]
    Waits { id: u64, first: u64 },
    #[error("say why it is discarded")]
    NoReason,
    #[error(
        "{source_name} does not answer ({why}), and dead letters are applied as its outbox has \
         them: start it and try again; they wait unchanged"
    )]
    SourceAway { source_name: String, why: String },
    #[error("a rebuild is taking over the tables: try again in a moment")]
    TakeOver,
    #[error("the database cannot take it now")]
    Database(#[from] DbErr),
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

fn counted<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Result<u64, DbErr> {
    let row = db.query_one_raw(statement(db, sql, values))?;
    row.map_or(Ok(0), |row| Ok(unsigned(row.try_get_by("n")?)))
}

fn statement<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}
