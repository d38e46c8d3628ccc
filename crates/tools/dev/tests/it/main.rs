//! The real `dev` binary with real services, a real nats-server, free ports and temporary folders.
//!
//! The first start builds the services, which takes a few minutes.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the answer; clippy.toml exempts test functions, not their helpers"
)]

mod fails;
mod room;
mod runs;
mod stops;
mod support;
