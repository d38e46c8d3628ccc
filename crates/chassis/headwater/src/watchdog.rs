//! Feeding the watchdog: only whoever makes progress does.
//!
//! Each time it is fed, this has been round all that can hang: the runtime (it is a task), the
//! loop that accepts connections, and the writer thread of the database. One of them that stands
//! still lets the watchdog of the service manager fire, and the service is started again.
//!
//! **A slow disk is not a hang.** The writer thread counts its steps: a closure that ran, a group
//! that was committed, a log that was emptied. While there are any, it is alive, however many
//! writes wait before ours. So only a single step may not take longer than the deadline less a
//! [share](SHARE) of it: with `WatchdogSec=30s` one fsync of 22 seconds is still slow, and one of
//! 30 is a hang.
//! (To end a process in such an fsync loses nothing: it ends when the kernel lets go of it.)

use std::time::Duration;

use headwater_http::LivenessProbe;
use headwater_store::Database;
use headwater_telemetry::systemd;
use tokio_util::sync::CancellationToken;

/// The pause between two rounds, as a share of the deadline: what is left of it is for the round.
const SHARE: u32 = 4;

/// Feeds the watchdog as long as all make progress, until `stop`.
///
/// # Errors
/// None.
pub(crate) async fn feed(
    deadline: Duration,
    http: LivenessProbe,
    db: Option<Database>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    stop.run_until_cancelled(async {
        loop {
            http.ping().await;
            if let Some(db) = &db {
                db.ping().await;
            }
            systemd::feed();
            tokio::time::sleep(deadline / SHARE).await;
        }
    })
    .await;
    Ok(())
}
