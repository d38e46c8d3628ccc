//! The events of Headwater, without I/O: events ([`Event`]), their envelopes ([`Envelope`],
//! [`EventId`]), positions ([`Position`]), and schemas for programs that were not built with the
//! event types ([`schema`]).

#![warn(missing_docs)]

mod as_of;
mod described;
mod envelope;
pub mod event;
pub mod facts;
mod outbox_row;
pub mod position;
pub mod schema;

pub use as_of::{AsOf, Behind};
pub use envelope::{Envelope, EventId, NotAnEventId, Undecodable, kind_of};
pub use event::{Event, MAX_PAYLOAD, PARTITIONS, partition, subject_of};
pub use outbox_row::Row;
pub use position::{NotPositions, Position, Positions};
