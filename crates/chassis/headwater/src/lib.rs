//! Headwater: the chassis for event-driven services on NATS JetStream.
//!
//! A service owns a database and publishes its changes as events. Other services keep the copies
//! they need. The chassis moves the events reliably and never interprets them:
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
//!
//! `docs/adding-a-service.md` and `docs/adding-a-projection.md` explain how to use it.

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
}
