//! Helpers for tests of services and of the chassis. Nothing here depends on the shop.
//!
//! * [`eventually`]: waits for a state, with a timeout that reports the last state.
//! * [`broker()`]: a `nats-server` for one test.
//! * [`Link`]: a TCP link that is slow, delayed or cut.
//! * [`program`]: a program of the workspace, built.
//! * [`Tool`]: runs a command-line program, writes its input and reads its output.
//! * [`copy_folder`]: copies what a process left on disk.
//!
//! With the feature `golden`:
//!
//! * `golden`: checks that every released version of every event still decodes.
//!
//! With the feature `projection`, for tests that need no broker:
//!
//! * `Given`: given, when, then for a projection.
//! * `converges`: checks that a projection ends in the same tables, whatever happens on the way.
//! * `recorded`: which events a command appends to the outbox.
//! * `Store`: a database in a temporary folder.
//! * `TestClock`: a clock that a test sets.
//!
//! With the feature `service`:
//!
//! * `serving`: a whole service in the test's process, with a broker of its own.

mod folder;
#[cfg(feature = "golden")]
mod golden;
mod link;
mod programs;
#[cfg(feature = "projection")]
mod projection;
#[cfg(feature = "service")]
mod serving;
mod tool;
mod wait;

use broker::Broker;

pub use folder::copy_folder;
#[cfg(feature = "golden")]
pub use golden::golden;
pub use link::Link;
pub use programs::{has_built, program, programs};
#[cfg(feature = "projection")]
pub use projection::{Converges, Given, Store, TestClock, converges, envelope, recorded};
#[cfg(feature = "service")]
pub use serving::{Served, serving};
pub use tool::{Ended, Tool, on_terminal};
pub use wait::{PATIENCE, eventually, eventually_blocking, eventually_within, is};

/// A broker on a free port, with a store in a temporary folder. It ends when it is dropped, or
/// with the test.
pub fn broker() -> Broker {
    broker_with("")
}

/// [`broker()`] with additional `settings` in its configuration.
pub fn broker_with(settings: &str) -> Broker {
    Broker::start_in_temp_with(settings).expect("start nats-server")
}
