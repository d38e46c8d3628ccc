//! What tests of services and of the chassis share. It knows nothing of the shop.
//!
//! * [`eventually`]: waits for a state, has a ceiling, says what it saw last.
//! * [`broker()`]: a `nats-server` of the test's own.
//! * [`Link`]: a TCP link that is slow, late or cut.
//! * [`program`]: a program of the workspace, built.
//! * [`Tool`]: a program with a command line, fed and read.
//! * [`copy_folder`]: what a process left on disk, for another time.
//! * `Given`: given, when, then for a projection, without a broker.

mod folder;
mod link;
mod programs;
#[cfg(feature = "projection")]
mod projection;
mod tool;
mod wait;

use broker::Broker;

pub use folder::copy_folder;
pub use link::Link;
pub use programs::{has_built, program, programs};
#[cfg(feature = "projection")]
pub use projection::{Given, envelope, interleavings};
pub use tool::{Ended, Tool, on_terminal};
pub use wait::{PATIENCE, eventually, eventually_blocking, eventually_within, is};

/// A broker on a free port, with a store in a temporary folder; it ends when it is dropped, or
/// with the test.
///
/// # Panics
/// When `nats-server` is neither found nor installed, or does not start.
pub fn broker() -> Broker {
    broker_with("")
}

/// [`broker()`] with these settings in its configuration besides.
///
/// # Panics
/// As [`broker()`].
pub fn broker_with(settings: &str) -> Broker {
    Broker::start_in_temp_with(settings).expect("start nats-server")
}
