//! What the author of a projection writes.

use headwater_event::{Envelope, Undecodable};
use headwater_store::Tx;
use sea_orm::DbErr;

/// Folds events into tables. See the [crate] for the rules.
pub trait Projection: Send + Sync + 'static {
    /// The checkpoint's key, and the durable consumer's name. Never rename.
    const NAME: &'static str;
    /// Raise it when `apply` changes what it makes of old events: its tables are rebuilt at the
    /// next start.
    const VERSION: u32;
    /// The sources whose events it folds.
    const SOURCES: &'static [&'static str];
    /// What two folds of the same events must have in common: a name and a query each. Numbers
    /// that depend on the order in which sources came do not belong in here. Without any, all
    /// tables are compared as they are.
    const CONTENT: &'static [(&'static str, &'static str)] = &[];
    /// Its tables, parents first. A projection in a database that its service keeps more in has to
    /// name them: a rebuild makes these equal to a new fold and touches no others. Each has a
    /// primary key, and nothing but `apply` writes to it. A read store, which is nothing but a
    /// copy, need not name any.
    const TABLES: &'static [&'static str] = &[];

    /// Applies `events`, which are of one source and in its order, in the transaction `tx`.
    ///
    /// # Errors
    /// Transient: the batch is tried again. Poison: the one event at fault is parked.
    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError>;

    /// The key of `event`: only later events of the same key wait behind a parked one. `None`
    /// where it cannot be read: then it is parked alone, and later events are applied.
    fn key(&self, event: &Envelope) -> Option<String> {
        let _ = event;
        None
    }
}

/// Why events could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It may work later: the database's errors, unless the projection says otherwise.
    #[error("cannot be applied now")]
    Transient(#[from] DbErr),
    /// It will never work: it does not decode, is of an unknown kind, or breaks a rule.
    #[error("{0}")]
    Poison(String),
}

impl ApplyError {
    /// An event of a kind that the projection does not know.
    pub fn unknown(event: &Envelope) -> Self {
        Self::Poison(format!("unknown event {}", event.kind()))
    }
}

impl From<Undecodable> for ApplyError {
    fn from(error: Undecodable) -> Self {
        Self::Poison(error.to_string())
    }
}
