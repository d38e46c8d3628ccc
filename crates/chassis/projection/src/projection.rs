//! The trait that authors of projections implement.

use headwater_event::{Envelope, Undecodable};
use headwater_store::Tx;
use sea_orm::DbErr;

/// Applies events to tables. See the [crate] for the rules.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a projection",
    label = "not a projection",
    note = "write `impl Projection for` your type, and pass a value of that type itself: no reference, no `Arc`, no closure"
)]
pub trait Projection: Send + Sync + 'static {
    /// The checkpoint's key, and the durable consumer's name. Never rename.
    const NAME: &'static str;
    /// Raise it when `apply` changes its result for old events: the tables are then rebuilt at the
    /// next start.
    const VERSION: u32;
    /// The sources whose events it applies.
    const SOURCES: &'static [&'static str];
    /// The events that it applies, in the newest version that the program knows:
    /// `&[OrdersEvent::SUBJECTS]` for all of a source, `&[&[OrderPlaced::SUBJECT]]` for one. Events
    /// in a newer version are held until the service is upgraded. Without this, `apply` gets them:
    /// at best they become dead letters.
    const EVENTS: &'static [&'static [&'static str]] = &[];
    /// What two builds from the same events must have in common: a name and a query each. Leave out
    /// numbers that depend on the order between sources. If empty, all tables are compared
    /// completely.
    const CONTENT: &'static [(&'static str, &'static str)] = &[];
    /// Its tables, parents first. Required if its database also holds other tables of the service:
    /// a rebuild changes only these. Each table needs a primary key, and only `apply` may write to
    /// it. May be empty for a read store, which holds nothing else.
    const TABLES: &'static [&'static str] = &[];

    /// Applies `events`, which are of one source and in its order, in the transaction `tx`.
    ///
    /// # Errors
    /// Transient: the batch is retried. Poison: the event at fault becomes a dead letter.
    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError>;

    /// The key of `event`: only later events of the same key wait behind its dead letter, and only
    /// readers who [follow](crate::Progress::follow) it are woken. `None` if the key cannot be read:
    /// the event's dead letter then blocks no other event, and the event wakes all who follow.
    fn key(&self, event: &Envelope) -> Option<String> {
        let _ = event;
        None
    }
}

/// The queries whose rows two stores of a projection must have in common, each with a name: its
/// `content`; without that, its `tables`; without both, every table that is not the chassis's, nor a
/// part of a virtual table such as a full-text index, whose layout depends on batches. `names` reads
/// their names with the query that it is given.
///
/// # Errors
/// Those of `names`.
pub fn compared<E>(
    content: &[(&str, &str)],
    tables: &[&str],
    names: impl FnOnce(&str) -> Result<Vec<String>, E>,
) -> Result<Vec<(String, String)>, E> {
    if !content.is_empty() {
        let content = content.iter();
        return Ok(content
            .map(|(name, sql)| ((*name).to_owned(), (*sql).to_owned()))
            .collect());
    }
    let tables = if tables.is_empty() {
        names(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'virtual')
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'headwater\\_%' ESCAPE '\\'
             ORDER BY name",
        )?
    } else {
        tables.iter().map(ToString::to_string).collect()
    };
    let whole = tables.into_iter().map(|table| {
        let sql = format!("SELECT * FROM \"{table}\"");
        (table, sql)
    });
    Ok(whole.collect())
}

/// Why events could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It may succeed later: the database's errors, unless the projection decides otherwise.
    #[error("cannot be applied now")]
    Transient(#[from] DbErr),
    /// It will never succeed: it does not decode, is of an unknown kind, or breaks a rule.
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
