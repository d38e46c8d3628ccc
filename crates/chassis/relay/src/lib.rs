//! The relay: publishes a source's outbox to its stream, in order, each event once.
//!
//! Start at [`Relay`].

#![warn(missing_docs)]

mod cursor;
mod limit;
mod memory;
mod publish;
mod relay;
mod resume;
mod stop;
mod tail;

pub use limit::event_max;
pub use relay::{Published, Relay};
