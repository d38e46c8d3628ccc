//! Effects: work outside of the database that an event causes, such as an e-mail, a webhook, or a
//! command to another service.
//!
//! # What
//!
//! ```
//! # use headwater_effect::{Effect, Outcome};
//! # use headwater_event::Envelope;
//! # struct Mailer;
//! # impl Mailer {
//! #     async fn send(&self, _: &[u8], _: &str) -> std::io::Result<()> { Ok(()) }
//! # }
//! struct Confirmation {
//!     mailer: Mailer,
//! }
//!
//! impl Effect for Confirmation {
//!     const NAME: &'static str = "orders-confirmation";
//!     const SOURCES: &'static [&'static str] = &["orders"];
//!     const EVENTS: &'static [&'static str] = &["orders.v1.placed"];
//!
//!     async fn perform(&self, event: &Envelope, key: &str) -> Outcome {
//!         match self.mailer.send(&event.payload, key).await {
//!             Ok(()) => Outcome::Done,
//!             Err(error) => Outcome::retry(error.to_string()),
//!         }
//!     }
//! }
//! ```
//!
//! # Intents
//!
//! A projection cannot do such work: its transaction may be rolled back after the mail was sent, or
//! committed without it. So an effect is two things. Its **projection** writes an **intent** for
//! each event into the **ledger**, in the transaction that moves the checkpoint: each event has one
//! intent, whatever is delivered again. Its **worker** performs what the ledger holds, and removes
//! an intent when its work is done.
//!
//! A process that dies between the work and the removal does the work again. So the work is done
//! **at least once**, always with the same **key**, `source:epoch:position:name`. A receiver that
//! remembers keys sees each once. No key is performed twice at the same time: the database has one
//! process, and that has one worker for each effect.
//!
//! | `perform` returns | the intent |
//! | --- | --- |
//! | [`Outcome::Done`] | is removed |
//! | [`Outcome::Retry`] | is performed again after the next pause of [`Config::schedule`]; after the last, it is a dead letter |
//! | [`Outcome::GiveUp`] | is a dead letter |
//! | [`Outcome::SwitchOff`] | is a dead letter, and the effect is paused |
//!
//! A panic, and work that takes longer than [`Config::timeout`], are retried.
//!
//! # Dead letters and pauses
//!
//! They are those of projections. `headwater dead-letter list` shows an intent that was given up,
//! `retry` puts it back into the ledger with the same key, `discard` forgets it. Its successors do
//! not wait for it. `headwater projection pause` also stops the worker. An effect that has only
//! failed for [`Config::switch_off_after`] pauses itself; `headwater projection resume` switches it
//! on again.
//!
//! After a rollback of the program, an intent in a newer version than [`Effect::EVENTS`] names is
//! held until the upgrade, and so are later ones of its key.
//!
//! # Where it begins
//!
//! An effect that is started on an old stream does not perform the past. It begins with the events
//! that their source recorded after the effect was first started with that source. That time is
//! stored, so a restart does not move it. [`Start::Beginning`] performs everything. A source that
//! was restored from a backup has a new epoch with old events; those that the effect has passed are
//! not performed again.
//!
//! # Never rebuilt
//!
//! The ledger is in the service's own database and is not part of what a rebuild changes. A read
//! store has no effects: its file is replaced as a whole. A rebuild of an effect is refused: what
//! it did cannot be undone, and would be done again.
//!
//! # Timers
//!
//! [`Effect::intend`] may postpone an intent ([`Intent::After`]): it is stored like any other, and
//! becomes due once, also after a restart. One that is due is held until the effect has read every
//! event that its [`SOURCES`](Effect::SOURCES) had recorded by then: a payment that was recorded in
//! time counts, although the broker, or this service, was away. While a source is away, timers wait,
//! and the component of the effect's work says for which. With a table that `intend` writes to and `perform` reads,
//! this is a process manager: `examples/payment-deadline`.

#![warn(missing_docs)]

mod ask;
mod begin;
mod config;
mod effect;
mod error;
mod intents;
mod ledger;
mod timers;
pub mod webhook;
mod worker;

pub use config::{Config, Start};
pub use effect::{Effect, Intent, Outcome};
pub use error::Error;
pub use intents::Intents;
pub use worker::Worker;
