//! SIGHUP: reloading configuration while the service runs.
//!
//! SIGHUP reloads the files of the log filter, the credentials and the root certificate. A broken
//! file changes nothing and is logged as an `ERROR`: the service keeps the old values.

use std::convert::Infallible;

use headwater_nats::bus::Bus;
use headwater_telemetry::{self as telemetry, causes, systemd};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// SIGHUPs, which ask for a reload. From this call on, SIGHUP no longer ends the process.
///
/// # Errors
/// The process may not listen for signals.
pub(crate) fn sighup() -> Result<Signal, Error> {
    let what = "listen for SIGHUP";
    signal(SignalKind::hangup()).map_err(|error| Error::System { what, error })
}

/// Reloads everything on each `sighup`, until `stop`.
///
/// # Errors
/// None.
pub(crate) async fn on_hangup(
    mut sighup: Signal,
    telemetry: telemetry::Config,
    bus: Bus,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    while let Some(Some(())) = stop.run_until_cancelled(sighup.recv()).await {
        systemd::reloading();
        let filter = telemetry::renew_filter(&telemetry);
        log("log filter", filter);
        log("access to NATS", bus.renew_access());
        systemd::ready();
    }
    stop.cancelled().await;
    Ok(())
}

/// Logs whether `what` has changed.
fn log(what: &str, renewed: Result<bool, impl std::error::Error + 'static>) {
    match renewed {
        Ok(true) => tracing::info!("{what}: reloaded"),
        Ok(false) => tracing::info!("{what}: unchanged"),
        Err(error) => tracing::error!(
            error = causes(&error),
            "{what}: not reloaded, the service keeps the old one; repair the file and send SIGHUP again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The runtime that would receive it is gone.
    #[test]
    fn a_signal_that_cannot_be_received_is_named() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        let refused = sighup().expect_err("nothing receives it");
        let Error::System { what, .. } = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(what, "listen for SIGHUP");
    }
}
