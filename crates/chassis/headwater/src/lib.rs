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

mod config;
mod file_watch;
pub mod operator;
mod reload;
mod renamed;
pub mod request_reply;
mod sample;
mod service;
mod watchdog;

pub use config::{Config, parse, without_empty_variables};
pub use headwater_backup as backup;
pub use headwater_event::{
    Envelope, Event, EventId, MAX_PAYLOAD, NotAnEventId, NotPositions, PARTITIONS, Position,
    Positions, Undecodable, kind_of, partition, subject_of,
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
pub use schema::Schema;
pub use service::Service;

/// What the events of a source look like, and the bucket in which tools find it.
pub mod schema {
    pub use headwater_event::schema::*;
    pub use headwater_nats::{Keeper, bucket};
}

/// The outbox of a service, and an event in it.
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
}
