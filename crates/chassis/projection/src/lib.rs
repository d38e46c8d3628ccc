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
//! missing (`Behind::Parked`), and `AsOf::whole` ends before it.
//!
//! # Why acknowledgements are off
//!
//! The consumers have `AckPolicy::None` and are started at the checkpoint. Acknowledging costs a
//! third to two thirds of the replay rate and adds a second memory that can be wrong: an
//! acknowledgement of "all up to here" was seen to swallow events that were in flight when a
//! node died.

#![warn(missing_docs)]

pub mod anomaly;
mod apply;
pub mod barrier;
pub mod checkpoint;
mod config;
pub mod dead_letter;
mod feed;
mod gap;
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
mod start;

pub use anomaly::Anomalies;
pub use barrier::BarrierGuard;
pub use checkpoint::{as_of, as_of_raw, epochs, note_version, places};
pub use config::Config;
pub use pause::PauseControl;
pub use progress::Progress;
pub use projection::{ApplyError, Projection};
pub use runner::{Runner, RunnerHandle};
pub use source::Sources;
pub use source_answer::Backlog;
