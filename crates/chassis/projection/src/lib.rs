//! Projections: apply the events of one or more sources to tables of this service's database.
//!
//! # What
//!
//! A projection is a name, the sources it listens to, and a function from a batch of events to
//! changes of tables:
//!
//! ```
//! # use headwater_event::{Envelope, Event};
//! # use headwater_projection::{ApplyError, Projection};
//! # use headwater_store::Tx;
//! # use sea_orm::raw_sql;
//! # #[derive(Clone, PartialEq, prost::Message)]
//! # struct ProductCreated {
//! #     #[prost(string, tag = "1")]
//! #     product_id: String,
//! #     #[prost(string, tag = "2")]
//! #     title: String,
//! # }
//! # impl Event for ProductCreated {
//! #     const SUBJECT: &'static str = "products.v1.created";
//! #     fn key(&self) -> &str { &self.product_id }
//! # }
//! struct Titles;
//!
//! impl Projection for Titles {
//!     const NAME: &'static str = "titles"; // never rename
//!     const VERSION: u32 = 1;
//!     const SOURCES: &'static [&'static str] = &["products"];
//!     const EVENTS: &'static [&'static [&'static str]] = &[&[ProductCreated::SUBJECT]];
//!
//!     fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
//!         for event in events {
//!             let ProductCreated { product_id, title } = event.decode()?;
//!             tx.run_raw(raw_sql!(
//!                 Sqlite,
//!                 "INSERT INTO title (product_id, title) VALUES ({product_id}, {title})"
//!             ))?;
//!         }
//!         Ok(())
//!     }
//! }
//! ```
//!
//! The [`Runner`] does the rest. It reads each source's stream through a durable consumer, passes
//! the events that are ready as a batch, and moves the **checkpoint in the same transaction** as
//! the projection's changes. So an event is applied once, however often it is delivered.
//! `apply` need not be idempotent, and must not keep state in memory.
//!
//! # Positions decide
//!
//! The broker's delivery state is only for operators to look at (`nats consumer report`). The
//! runner compares the event's position in its source's outbox with the checkpoint:
//!
//! | position | the runner |
//! | --- | --- |
//! | next | applies it |
//! | earlier | skips it: redelivered, or published again after the stream lost it |
//! | later | **gap**: reads the stream again from the checkpoint; if the events are not in it, fetches them from the source's outbox; if the source is down, waits and reports that. It never skips |
//!
//! This covers a deleted consumer, a recreated or rolled-back stream, and a restored store. An
//! event published by hand has no position. It is applied once for its sequence, logged and
//! counted.
//!
//! # Only the source knows its epoch
//!
//! Anyone allowed to publish can write an id of any epoch. So an event is applied only if its
//! source has confirmed the event's epoch. Before an event of another epoch, the projection asks
//! the source:
//!
//! | the source answers | the event |
//! | --- | --- |
//! | this is its epoch | begins a new epoch, from position 1 |
//! | it has another epoch | is refused: skipped, logged, counted, and reported until the stream is recreated |
//! | nothing | waits, as behind a gap; a store that has applied nothing yet accepts the epoch provisionally |
//!
//! When a new epoch begins, the old one is closed at the last applied position. A rebuild copies
//! the confirmed epochs, so it needs no source. The source also reports how far its outbox is. A
//! projection that is further has applied events that were never committed: a fault until it is
//! rebuilt (`source.rs`).
//!
//! # Events change
//!
//! Old versions of an event are upcast when they are decoded
//! ([`version`](headwater_event::version)): a projection names the newest version only. An event in
//! a *newer* version than any in [`EVENTS`](Projection::EVENTS) is held, and all later events of its
//! source with it: the component and the log say which service to upgrade, and after the upgrade
//! the projection continues with that event.
//!
//! # Sources come in any order
//!
//! Each source is in order; there is no order between sources. A projection must give the same
//! result for any interleaving: an order may come before its product and its user.
//!
//! # Poison
//!
//! [`ApplyError::Transient`] is retried, with pauses. [`ApplyError::Poison`] is narrowed down to
//! the one event, which becomes a dead letter in `headwater_dead_letter` in the same transaction.
//! Later events of the same key become dead letters too and wait behind it, in order; other keys
//! continue. An event whose key cannot be read blocks no other event. `headwater dead-letter` lists
//! dead letters, retries them once the cause is fixed, or discards them. Until then, a request that
//! waits for this or a later position fails with `Behind::DeadLettered`, and `AsOf::without_gaps` ends
//! before it.
//!
//! # Why acknowledgements are off
//!
//! The consumers have `AckPolicy::None` and start at the checkpoint. Acknowledging costs a third to
//! two thirds of the replay rate, and adds a second progress record that can be wrong: an
//! acknowledgement of "all up to here" was observed to swallow events in flight when a node died.

#![warn(missing_docs)]

pub mod anomaly;
mod apply;
pub mod barrier;
pub mod checkpoint;
mod config;
pub mod dead_letter;
mod error;
mod feed;
mod gap;
mod newer;
mod outbox;
pub mod pause;
pub mod progress;
pub mod projection;
mod reader;
pub mod runner;
mod shared;
mod source;
mod source_answer;
mod source_watch;
#[cfg(feature = "testing")]
pub mod testing;

pub use anomaly::Anomalies;
pub use barrier::BarrierGuard;
pub use checkpoint::{as_of, as_of_raw, epochs, note_version, places};
pub use config::Config;
pub use error::Error;
pub use headwater_store::follow::Follower;
pub use pause::PauseControl;
pub use progress::Progress;
pub use projection::{ApplyError, Projection, compared};
pub use runner::{Runner, RunnerHandle};
pub use source::Sources;
pub use source_answer::Backlog;
