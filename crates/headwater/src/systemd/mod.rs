//! The service manager, where there is one: systemd's sockets, its notifications, its watchdog.
//!
//! Without it (no `LISTEN_FDS`, `NOTIFY_SOCKET`, `WATCHDOG_USEC`) nothing of this is felt.
//! `deploy/systemd` has the units.

mod watchdog;

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::Health;
use crate::http::Pulse;

pub(crate) use watchdog::feed;

/// The pause between two looks at the parts: their states may change with each event.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket that systemd listens on for us, also while we are restarted.
///
/// # Errors
/// There are several, or it is none for TCP.
pub(crate) fn listener() -> anyhow::Result<Option<TcpListener>> {
    let mut passed = ListenFd::from_env();
    if passed.len() == 0 {
        return Ok(None);
    }
    ensure!(
        passed.len() == 1,
        "systemd passed {} sockets; a service has one: leave one ListenStream in its .socket unit",
        passed.len()
    );
    let listener = passed
        .take_tcp_listener(0)
        .context("take the socket of the .socket unit, which must be of TCP")?;
    if let Some(listener) = &listener {
        listener
            .set_nonblocking(true)
            .context("take the socket of the .socket unit")?;
    }
    Ok(listener)
}

/// Whether somebody wants to be notified.
pub(crate) fn is_told() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// How soon the watchdog must be fed, if there is one.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|deadline| is_told() && !deadline.is_zero())
}

/// Says that the service is ready, once it accepts connections, and how its parts are, as that
/// changes, until `stop`: it says then that it stops.
///
/// Ready means that it serves; the broker may be away, for start order never matters.
///
/// # Errors
/// None.
pub(crate) async fn tell(
    health: Health,
    http: Pulse,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    stop.run_until_cancelled(async {
        http.beat().await;
        ready();
        let mut parts = health.watch();
        let mut said = String::new();
        loop {
            parts.mark_unchanged();
            let summary = health.summary();
            if said != summary {
                notify(&[NotifyState::Status(&summary)]);
                said = summary;
            }
            tokio::time::sleep(PAUSE).await;
            if parts.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    Ok(())
}

/// Says that the service serves, for the first time or after a reload.
pub(crate) fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Says that the service reads its configuration anew.
pub(crate) fn reloading() {
    // The time lets `Type=notify-reload` tell this reload from an earlier one.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "notify the service manager");
    }
}
