//! SIGHUP: what is read anew while the service runs on.
//!
//! The log filter from its file, credentials and root certificate from theirs. A file that is
//! broken changes nothing and is an `ERROR`: the service goes on with what it had.

use anyhow::Context as _;
use headwater_nats::bus::Bus;
use headwater_telemetry::{self as telemetry, systemd};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The wishes to read anew. With the first of these the system no longer ends the process at it.
///
/// # Errors
/// The process may not listen for signals.
pub(crate) fn sighup() -> anyhow::Result<Signal> {
    signal(SignalKind::hangup()).context("listen for SIGHUP")
}

/// Reads all anew at each of `sighup`, until `stop`.
///
/// # Errors
/// None.
pub(crate) async fn on_hangup(
    mut sighup: Signal,
    telemetry: telemetry::Config,
    bus: Bus,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Some(())) = stop.run_until_cancelled(sighup.recv()).await {
        systemd::reloading();
        let filter = telemetry::renew_filter(&telemetry);
        say("log filter", filter);
        say("access to NATS", bus.renew_access());
        systemd::ready();
    }
    stop.cancelled().await;
    Ok(())
}

/// Logs whether `what` is another one now.
fn say(what: &str, renewed: anyhow::Result<bool>) {
    match renewed {
        Ok(true) => tracing::info!("{what}: read anew"),
        Ok(false) => tracing::info!("{what}: nothing is new"),
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            "{what}: not read anew, the service goes on with what it had"
        ),
    }
}
