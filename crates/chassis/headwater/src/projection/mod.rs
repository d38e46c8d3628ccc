//! Projections: fold the events of one or more sources into tables of this service's database.
//!
//! # What
//!
//! A projection is a name, the sources it listens to, and a function from a batch of events to
//! changes of tables:
//!
//! ```ignore
//! impl Projection for Purchases {
//!     const NAME: &'static str = "purchases";
//!     const VERSION: u32 = 1;
//!     const SOURCES: &'static [&'static str] = &["users", "products", "orders"];
//!
//!     fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
//!         for event in events {
//!             match event.kind() {
//!                 ProductCreated::SUBJECT => store::save_product(tx, &event.decode()?)?,
//!                 _ => return Err(ApplyError::unknown(event)),
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//! ```
//!
//! The [`Runner`] does the rest: reads each source's stream through a durable consumer, hands over what is ready as a batch, and
//! moves the **checkpoint in the same transaction** as the projection's changes. So an event has
//! its effect once, however often it is delivered; `apply` need not be idempotent and must not
//! keep a memory of its own.
//!
//! # Positions decide
//!
//! The broker's idea of what was delivered is for people to look at (`nats consumer report`).
//! What counts is the event's position in its source's outbox, against the checkpoint:
//!
//! | position | the runner |
//! | --- | --- |
//! | next | applies it |
//! | earlier | skips it: redelivered, or published again after the stream lost it |
//! | later | **gap**: reads the stream again from the checkpoint; if the events are not in it, fetches them from the source's outbox; if the source is away, waits and says so. It never skips |
//!
//! A deleted consumer, a recreated or rolled-back stream, a restored store: all end there. An
//! event that somebody published by hand has no position and is applied once by its sequence; it
//! is logged and counted.
//!
//! # Only the source knows its epoch
//!
//! Anybody who may publish can write an id of any epoch. So an event is applied if its epoch is
//! one that the source has confirmed; before one of another epoch the source is asked:
//!
//! | the source says | the event |
//! | --- | --- |
//! | that is its epoch | begins a new epoch, from position 1 |
//! | it has another one | is refused: skipped, logged, counted, and shown until the stream is made again |
//! | nothing | waits, as behind a gap; a store that has applied nothing yet takes the epoch provisionally |
//!
//! A former epoch ends with the last position that was applied when the next one began. A
//! rebuild takes the confirmed epochs along, so it needs no source. The source also says how far
//! its outbox is: a projection that is further has applied events that nobody committed, which is
//! a fault until it is rebuilt (`source.rs`).
//!
//! # Sources come in any order
//!
//! Each source is in order; between sources nothing is promised. A projection must give the
//! same result for any interleaving: an order may come before its product and its user.
//!
//! # Poison
//!
//! [`ApplyError::Transient`] is tried again, with pauses. [`ApplyError::Poison`] is narrowed
//! down to the one event, which is parked in `headwater_dead_letter` in the same transaction,
//! and so are later events of the same key, in order; other keys go on. An event whose key cannot
//! be read is parked alone. `headwater dead-letter` shows them, tries them again once the cause is
//! mended, or gives them up. Until then, whoever asks for such a position is told that it is
//! missing ([`Behind::Parked`]), and [`AsOf::whole`] ends before it.
//!
//! # Why acknowledgements are off
//!
//! The consumers have `AckPolicy::None` and are started at the checkpoint. Acknowledging costs a
//! third to two thirds of the replay rate and adds a second memory that can be wrong: an
//! acknowledgement of "all up to here" was seen to swallow events that were in flight when a
//! node died.

mod anomaly;
mod apply;
mod checkpoint;
mod consumer;
pub(crate) mod dead_letter;
mod feed;
mod gap;
mod gate;
mod outbox;
pub(crate) mod pause;
mod progress;
mod pull;
mod reader;
mod runner;
mod source;
mod window;

use sea_orm::DbErr;

use crate::database::Tx;
use crate::envelope::Envelope;

pub(crate) use anomaly::Anomalies;
pub use checkpoint::{as_of, as_of_bare};
pub(crate) use checkpoint::{epochs, note_version, places};
pub use consumer::{Consumer, harm};
pub(crate) use gate::Held;
pub(crate) use pause::Brake;
pub use pause::Pause;
pub use progress::{AsOf, Behind, Progress};
pub(crate) use runner::Live;
pub use runner::{Config, Runner};
pub(crate) use source::Sources;

/// Folds events into tables. See the [module](self) for the rules.
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
