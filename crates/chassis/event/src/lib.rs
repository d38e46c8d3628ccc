//! The events of Headwater, without I/O: events ([`Event`]), their envelopes ([`Envelope`],
//! [`EventId`]), positions ([`Position`]), and schemas for programs that were not built with the
//! event types ([`schema`]).

#![warn(missing_docs)]

mod as_of;
mod described;
mod envelope;
mod error;
pub mod event;
pub mod facts;
mod marked;
mod outbox_row;
pub mod position;
pub mod schema;
pub mod version;

pub use as_of::{AsOf, Behind};
pub use envelope::{Envelope, EventId, NotAnEventId, kind_of};
pub use error::SchemaError;
pub use event::{Event, MAX_PAYLOAD, PARTITIONS, Undecodable, partition, subject_of};
pub use outbox_row::Row;
pub use position::{NotPositions, Position, Positions};
pub use version::{Upcast, is_newer};

/// The events that `headwater_build::compile` generated in the build script: their types, an
/// enumeration for each source, `SCHEMA`, `DESCRIPTORS` and `key`. The crate needs `prost`, and `prost-types` if a message uses
/// `google.protobuf`.
#[macro_export]
macro_rules! include_events {
    () => {
        #[allow(
            dead_code,
            deprecated,
            missing_docs,
            unreachable_pub,
            unused_imports,
            clippy::all,
            clippy::pedantic,
            reason = "generated; the documentation is in the .proto files"
        )]
        mod generated {
            use $crate as headwater_event;
            include!(concat!(env!("OUT_DIR"), "/headwater-events.rs"));
        }
        #[allow(unreachable_pub, reason = "the module decides who may use them")]
        pub use generated::*;
    };
}
