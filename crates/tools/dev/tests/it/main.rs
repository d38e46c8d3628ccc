//! The real `dev` binary: real services, a real nats-server, free ports, folders that go away.
//!
//! The first start builds the services, which takes some minutes where nothing is built yet.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the answer; clippy.toml exempts test functions, not their helpers"
)]

mod fails;
mod runs;
mod stops;
mod support;
