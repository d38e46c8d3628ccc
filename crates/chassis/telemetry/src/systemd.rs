//! The service manager: systemd's sockets, notifications and watchdog.
//!
//! Without systemd (no `LISTEN_FDS`, `NOTIFY_SOCKET`, `WATCHDOG_USEC`) this module does nothing.
//! `deploy/systemd` has the units.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::health::Health;

/// The shortest time between two status notifications: states may change with each event.
const PAUSE: Duration = Duration::from_millis(100);

/// The sockets on which systemd listens for the service, even during a restart.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For clients.
    pub public: Option<TcpListener>,
    /// For health and metrics.
    pub admin: Option<TcpListener>,
}

/// The `FileDescriptorName=` of the socket for health and metrics. Never rename.
const ADMIN: &str = "admin";

/// Takes the sockets that systemd passes; the one named `admin` is for health and metrics.
///
/// # Errors
/// [`Error::Sockets`]: there are several sockets for the same purpose, or one is not a TCP socket.
pub fn listeners() -> Result<Sockets, Error> {
    passed().map_err(|error| Error::Sockets(error.into()))
}

fn passed() -> anyhow::Result<Sockets> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Sockets::default();
    for index in 0..passed.len() {
        let context = "take the sockets of the .socket units, which must be TCP";
        let socket = passed.take_tcp_listener(index).context(context)?;
        let socket = socket.context(context)?;
        socket.set_nonblocking(true).context(context)?;
        let socket = TcpListener::from_std(socket).context(context)?;
        let taken = match names.next() {
            Some(ADMIN) => sockets.admin.replace(socket),
            _ => sockets.public.replace(socket),
        };
        ensure!(
            taken.is_none(),
            "systemd passed {} sockets; a service takes two, each with one ListenStream: that of \
             headwater-NAME.socket, and that of headwater-NAME-admin.socket, which has \
             FileDescriptorName={ADMIN}",
            passed.len()
        );
    }
    Ok(sockets)
}

/// Whether a service manager wants notifications.
pub fn is_told() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// The deadline of the watchdog, if there is one.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|deadline| is_told() && !deadline.is_zero())
}

/// Notifies the service manager until `stop`: of readiness once `serves` resolves (the service then
/// accepts connections), of the components' states on every change, and finally of the stop.
///
/// Ready means that the service accepts requests. The broker may be unreachable: the start order
/// does not matter.
///
/// # Errors
/// None.
pub async fn tell(
    health: Health,
    serves: impl Future<Output = ()>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    stop.run_until_cancelled(async {
        serves.await;
        ready();
        let mut states = health.watch();
        let mut reported = String::new();
        loop {
            states.mark_unchanged();
            let summary = health.summary();
            if reported != summary {
                notify(&[NotifyState::Status(&summary)]);
                reported = summary;
            }
            tokio::time::sleep(PAUSE).await;
            if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    })
    .await;
    notify(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    Ok(())
}

/// Notifies the service manager of what the start waits for, and extends its timeout by `longer`.
pub fn starting(what: &str, longer: Duration) {
    if is_told() {
        let longer_us = u32::try_from(longer.as_micros()).unwrap_or(u32::MAX);
        let longer = NotifyState::ExtendTimeoutUsec(longer_us);
        notify(&[NotifyState::Status(what), longer]);
    }
}

/// Notifies the service manager that the service is ready, after the start or a reload.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Notifies the watchdog.
pub fn feed() {
    notify(&[NotifyState::Watchdog]);
}

/// Notifies the service manager of a reload.
pub fn reloading() {
    // With the time, `Type=notify-reload` distinguishes this reload from an earlier one.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(_) => notify(&[NotifyState::Reloading]),
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}
