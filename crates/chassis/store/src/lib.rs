//! The database of a service: one SQLite file.
//!
//! * [`Database`]: one writer thread with group commit, snapshots for readers;
//! * [`outbox`]: events, written in the same transaction as the change they describe;
//! * [`idempotency`]: one key of a client, one effect;
//! * [`personal`]: personal data that can be erased, also from backups;
//! * [`fair`]: turns for clients that wait for a reader or another scarce resource.

#![warn(missing_docs)]

mod bulk;
mod config;
pub mod connection;
pub mod database;
mod error;
pub mod fair;
mod file;
pub mod follow;
pub mod generation;
pub mod idempotency;
mod identity;
mod key_file;
mod keys;
mod kind;
pub mod lock;
mod migration;
pub mod number;
mod opening;
pub mod outbox;
pub mod personal;
pub mod private;
mod raw;
mod read_limit;
mod readers;
mod reason;
pub mod room;
mod transaction;
pub mod verified;
mod write_error;
mod writer;

pub use bulk::Bulk;
pub use config::{Config, check, make_folder};
pub use database::{Database, RetiredFile, Sizes};
pub use error::Error;
pub use generation::Beside;
pub use kind::Kind;
pub use lock::Lock;
pub use migration::{Migration, Step};
pub use raw::RawSnapshot;
pub use transaction::{Snapshot, Tx};
pub use write_error::{Committed, WriteError};
