//! Events of Headwater, and nothing that does I/O: what a source says happened ([`Event`]), what
//! is around it on its way ([`Envelope`], [`EventId`]), how far somebody is ([`Position`]), and
//! what events look like, for programs that were not built with them ([`schema`]).

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
