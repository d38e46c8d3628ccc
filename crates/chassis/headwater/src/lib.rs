//! Headwater: the chassis under event-driven services on NATS JetStream.
//!
//! A service keeps its own database and publishes what happened; others keep the copies they
//! need. The chassis moves the events, reliably, and knows nothing of what they say:
//!
//! * [`Database`]: one writer thread with group commit, snapshots for readers;
//! * [`outbox`]: events written in the transaction of the change that they tell of;
//! * [`relay`]: outbox to stream, in order, each once, however the broker fails;
//! * [`projection`]: streams to tables, each event applied once, gaps repaired;
//! * [`inquiry`]: questions and answers over the bus, for those who would rather ask than copy;
//! * [`personal`]: personal data that can be erased, also from backups;
//! * [`backup`]: copies of a database, made while it runs and put back;
//! * [`schema`]: what the events look like, for tools that were not built with them;
//! * [`Service`]: all of these put together;
//! * [`http`], [`supervisor`], [`health`], [`telemetry`], [`operator`]: the process around them;
//! * [`text`]: which names and titles are taken.
//!
//! `docs/adding-a-service.md` and `docs/adding-a-projection.md` say how to use it.

#![warn(missing_docs)]

mod access;
pub mod backup;
pub mod brokers;
pub mod bus;
mod causes;
mod clock;
mod config;
pub mod crash;
pub mod database;
mod envelope;
mod event;
pub mod fair;
pub mod health;
pub mod http;
pub mod idempotency;
pub mod inquiry;
mod journal;
pub mod login;
mod monitor;
pub mod operator;
pub mod outbox;
pub mod personal;
mod position;
mod private;
pub mod projection;
mod rebuild;
pub mod relay;
mod reload;
pub mod replicas;
pub mod schema;
mod service;
pub mod stream;
pub mod supervisor;
mod systemd;
pub mod telemetry;
pub mod text;
mod verified;

pub use bus::Bus;
pub use causes::causes;
pub use clock::Clock;
pub use config::{Config, parse, without_empty_variables};
pub use database::Database;
pub use envelope::{Envelope, EventId, NotAnEventId};
pub use event::{Event, MAX_PAYLOAD, PARTITIONS, partition, subject_of};
pub use health::Health;
pub use position::{NotPositions, Position, Positions};
pub use projection::{ApplyError, Projection};
pub use relay::Relay;
pub use schema::Schema;
pub use service::Service;
pub use supervisor::Supervisor;
