//! Headwater: the chassis for event-driven services on NATS JetStream.
//!
//! A service owns a database and publishes its changes as events. Other services keep the copies
//! they need. The chassis moves the events reliably and never interprets them.
//!
//! # Start here
//!
//! `headwater new reviews` writes a service that compiles and passes its tests. A service imports
//! the [`prelude`], and consists of settings, sources, projections, effects and routes; [`main`]
//! does the rest:
//!
//! ```no_run
//! use headwater::prelude::*;
//!
//! const ABOUT: About = About {
//!     name: "reviews", // never rename
//!     description: "Reviews of products.",
//!     version: env!("CARGO_PKG_VERSION"),
//!     port: 8086,
//! };
//!
//! const MIGRATIONS: &[Migration] = &[]; // the tables
//! # const SCHEMA: headwater::Schema = headwater::Schema { events: &[], questions: &[], descriptors: &[] };
//!
//! async fn run(config: Config, process: Process) -> headwater::Result {
//!     let mut service = Service::start(ABOUT, MIGRATIONS, config, process).await?;
//!     service.publish(&SCHEMA)?; // events: of `include_events!`
//!     let routes = OpenApiRouter::new().with_state(service.db.clone());
//!     service.serve(routes).await
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     headwater::main(ABOUT, run)
//! }
//! ```
//!
//! Examples, each a package: [hello-event], one event and one projection; [reviews], a source with
//! an API; [bestsellers], a read store; [webhook] and [payment-deadline], effects; [two-versions], an
//! event that changed; [replay-test], the test kit. Step by step: [adding a service], [adding a
//! projection], [adding an effect], [changing an event].
//!
//! [hello-event]: https://github.com/headwater-rs/headwater/tree/main/examples/hello-event
//! [reviews]: https://github.com/headwater-rs/headwater/tree/main/examples/reviews
//! [bestsellers]: https://github.com/headwater-rs/headwater/tree/main/examples/bestsellers
//! [webhook]: https://github.com/headwater-rs/headwater/tree/main/examples/webhook
//! [payment-deadline]: https://github.com/headwater-rs/headwater/tree/main/examples/payment-deadline
//! [two-versions]: https://github.com/headwater-rs/headwater/tree/main/examples/two-versions
//! [replay-test]: https://github.com/headwater-rs/headwater/tree/main/examples/replay-test
//! [adding a service]: https://github.com/headwater-rs/headwater/blob/main/docs/adding-a-service.md
//! [adding a projection]: https://github.com/headwater-rs/headwater/blob/main/docs/adding-a-projection.md
//! [adding an effect]: https://github.com/headwater-rs/headwater/blob/main/docs/adding-an-effect.md
//! [changing an event]: https://github.com/headwater-rs/headwater/blob/main/docs/changing-an-event.md
//!
//! # What is in it
//!
//! * [`Database`]: one writer thread with group commit, snapshots for readers;
//! * [`outbox`]: events written in the same transaction as the change they describe;
//! * [`relay`]: outbox to stream, in order, each event once, through broker failures;
//! * [`projection`]: streams to tables, each event applied once, gaps repaired;
//! * [`effect`]: work outside that an event causes, done at least once under a constant key;
//! * [`request_reply`]: questions and answers over the bus, for services that keep no copy;
//! * [`personal`]: personal data that can be erased, also from backups;
//! * [`backup`]: copies of a database, made while it runs, and restored;
//! * [`schema`]: the schema of the events, for tools that were not built with them;
//! * [`Service`]: all of these, assembled;
//! * [`http`], [`supervisor`], [`health`], [`telemetry`], [`operator`]: the process around them;
//! * [`text`]: which names and titles are accepted.

#![warn(missing_docs)]

mod config;
mod error;
mod file_watch;
pub mod operator;
pub mod prelude;
mod process;
mod reload;
mod renamed;
pub mod request_reply;
mod sample;
mod service;
mod watchdog;

pub use config::{Config, command, settings, without_empty_variables};
pub use error::{Error, Result};
pub use headwater_backup as backup;
pub use headwater_effect as effect;
pub use headwater_effect::Effect;
pub use headwater_event::{
    Envelope, Event, EventId, MAX_PAYLOAD, NotAnEventId, NotPositions, PARTITIONS, Position,
    Positions, Undecodable, Upcast, include_events, is_newer, kind_of, partition, subject_of,
    version,
};
pub use headwater_http as http;
pub use headwater_http::text;
pub use headwater_nats::{Bus, brokers, bus, login, replicas, stream};
pub use headwater_projection::{ApplyError, Projection};
pub use headwater_relay as relay;
pub use headwater_relay::Relay;
pub use headwater_store as database;
pub use headwater_store::{Database, fair, idempotency, personal};
pub use headwater_telemetry as telemetry;
pub use headwater_telemetry::{Clock, Health, Supervisor, causes, crash, health, supervisor};
pub use process::{Process, main, main_as};
pub use schema::Schema;
pub use service::Service;

/// The schema of a source's events, and the bucket in which tools find it.
pub mod schema {
    pub use headwater_event::schema::*;
    pub use headwater_nats::{Keeper, bucket};
}

/// The outbox of a service, and the events in it.
pub mod outbox {
    pub use headwater_event::Row;
    pub use headwater_store::number::{signed, unsigned};
    pub use headwater_store::outbox::*;
}

/// From streams to tables; see the crate `headwater_projection`.
pub mod projection {
    pub use headwater_event::{AsOf, Behind};
    pub use headwater_nats::consumer::{Consumer, harm};
    pub use headwater_nats::control::Pause;
    pub use headwater_projection::*;
    pub use headwater_rebuild::Error as RebuildError;
}
