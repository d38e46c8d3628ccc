//! The service manager, where there is one: systemd's sockets, its notifications, its watchdog.
//!
//! Without it (no `LISTEN_FDS`, `NOTIFY_SOCKET`, `WATCHDOG_USEC`) nothing of this is felt.
//! `deploy/systemd` has the units.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// The pause between two looks at the parts: their states may change with each event.
const PAUSE: Duration = Duration::from_millis(100);

/// The sockets that systemd listens on for us, also while we are restarted.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For clients.
    pub public: Option<TcpListener>,
    /// For health and metrics.
    pub admin: Option<TcpListener>,
}

/// What `FileDescriptorName=` calls the socket for health and metrics. Never rename.
const ADMIN: &str = "admin";

/// Takes the sockets that systemd passes; the one called `admin` is for health and metrics.
///
/// # Errors
/// There are several for the same, or one is none for TCP.
pub fn listeners() -> anyhow::Result<Sockets> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut passed = ListenFd::from_env();
    let mut sockets = Sockets::default();
    for index in 0..passed.len() {
        let context = "take the sockets of the .socket units, which must be of TCP";
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
            "systemd passed {} sockets; a service has two, each with one ListenStream: of \
             headwater-NAME.socket, and of headwater-NAME-admin.socket, which has \
             FileDescriptorName={ADMIN}",
            passed.len()
        );
    }
    Ok(sockets)
}

/// Whether somebody wants to be notified.
pub fn is_told() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// How soon the watchdog must be fed, if there is one.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|deadline| is_told() && !deadline.is_zero())
}

/// Says that the service is ready, once it accepts connections, and how its parts are, as that
/// changes, until `stop`: it says then that it stops. It accepts them once `serves` has come to its
/// end.
///
/// Ready means that it serves; the broker may be away, for start order never matters.
///
/// # Errors
/// None.
pub async fn tell(
    health: Health,
    serves: impl Future<Output = ()>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    stop.run_until_cancelled(async {
        serves.await;
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

/// Says what the start waits for, and that it may take `longer` from now on.
pub fn starting(what: &str, longer: Duration) {
    if is_told() {
        let longer_us = u32::try_from(longer.as_micros()).unwrap_or(u32::MAX);
        let longer = NotifyState::ExtendTimeoutUsec(longer_us);
        notify(&[NotifyState::Status(what), longer]);
    }
}

/// Says that the service serves, for the first time or after a reload.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Feeds the watchdog.
pub fn feed() {
    notify(&[NotifyState::Watchdog]);
}

/// Says that the service reads its configuration anew.
pub fn reloading() {
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
