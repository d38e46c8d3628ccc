//! Feeding systemd's watchdog, only while the service makes progress.
//!
//! Before each feed, a round trip passes through everything that can hang: the runtime (this is a
//! task), the loop that accepts connections, and the database's writer thread. If one of them
//! hangs, the watchdog fires and the service manager restarts the service.
//!
//! **A slow disk is not a hang.** The writer thread counts its steps: a closure that ran, a group
//! that was committed, a log that was emptied. While it takes steps it is alive, however many
//! writes are queued before the probe. Only a single step must not take longer than the deadline
//! less a [share](SHARE) of it: with `WatchdogSec=30s`, an fsync of 22 seconds is slow, and one of
//! 30 seconds is a hang.
//! (Killing a process during such an fsync loses nothing: it ends when the kernel releases it.)

use std::convert::Infallible;
use std::time::Duration;

use headwater_http::LivenessProbe;
use headwater_store::Database;
use headwater_telemetry::systemd;
use tokio_util::sync::CancellationToken;

/// The pause between two round trips is one part in `SHARE` of the deadline. The rest is for the
/// round trip.
const SHARE: u32 = 4;

/// Feeds the watchdog while the service makes progress, until `stop`.
///
/// # Errors
/// None.
pub(crate) async fn feed(
    deadline: Duration,
    http: LivenessProbe,
    db: Option<Database>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
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
