//! All services on a real broker, used as their users use them.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod after;
mod bad_input;
mod broker_away;
mod import;
mod journey;
mod rebuild;
mod redelivery;
mod tidy;
mod verify;
