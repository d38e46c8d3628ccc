//! The harness of the end-to-end tests: a [`World`] of all four services on a broker of its own.
//!
//! Each service is a child process or a container, on a port and a database file that stay the
//! same when it is stopped, or killed, and started again. The broker is a `nats-server` with
//! `sync_interval: always`, as it is shipped. Containers where a Docker daemon answers, child
//! processes otherwise, or as `HEADWATER_E2E` says.

pub mod accounts;
pub mod backlog;
pub mod broker;
pub mod checkers;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod data;
pub mod docker;
pub mod faults;
pub mod hammer;
pub mod installed;
pub mod link;
pub mod load;
pub mod locked;
pub mod model;
pub mod operator;
pub mod oracle;
pub mod process;
pub mod styles;
pub mod systemd;
pub mod world;

pub use client::{Client, Reply};
pub use docker::Docker;
pub use process::Process;
pub use world::{Service, World};

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// How long anything that must come may take: far longer than it does, so that only what never
/// comes fails, also on a slow machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Waits until `look` gives what was waited for; the only place in the tests that sleeps.
///
/// # Panics
/// When it does not come within [`PATIENCE`], with what was seen last.
pub async fn eventually<T, S: Debug, F: Future<Output = Result<T, S>>>(
    what: &str,
    look: impl FnMut() -> F,
) -> T {
    eventually_within(PATIENCE, what, look).await
}

/// As [`eventually`], for what takes longer the larger the dose is.
///
/// # Panics
/// When it does not come within `patience`, with what was seen last.
pub async fn eventually_within<T, S: Debug, F: Future<Output = Result<T, S>>>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(status) => assert!(
                tokio::time::Instant::now() < deadline,
                "waited {patience:?} for {what}; last seen: {status:?}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
