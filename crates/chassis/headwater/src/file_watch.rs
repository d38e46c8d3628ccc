//! Watching the database file: its place, its integrity, and its free disk space.

use std::convert::Infallible;
use std::time::Duration;

use headwater_store::{Database, Error, Lock};
use headwater_telemetry::health::{Health, State};
use tokio_util::sync::CancellationToken;

/// The pause between two checks of the database file.
const LOOK_AT_FILE: Duration = Duration::from_secs(1);

/// Watches the database file.
pub(crate) struct FileWatch {
    pub(crate) db: Database,
    pub(crate) lock: Option<Lock>,
    pub(crate) health: Health,
    pub(crate) is_copy: bool,
}

impl FileWatch {
    /// Reports a damaged or moved file, and keeps other processes away, until `stop`.
    /// Reads continue as far as possible: the operator decides when to put a file back.
    ///
    /// # Errors
    /// The lock file was removed, and another process has the database open now.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let watched = stop.run_until_cancelled(async {
            tokio::select! {
                error = self.look() => error,
                never = self.report_damage() => match never {},
            }
        });
        watched.await.map_or(Ok(()), Err)
    }

    /// Checks the file and its lock periodically; returns the reason to stop the service.
    async fn look(&self) -> Error {
        let (mut before, mut was_full) = (None, false);
        loop {
            let shortage = self.db.shortage();
            self.report_shortage(shortage.as_deref(), was_full);
            was_full = shortage.is_some();
            tokio::time::sleep(LOOK_AT_FILE).await;
            if let Some(Err(error)) = self.lock.as_ref().map(Lock::keep) {
                return error;
            }
            let moved = self.db.moved();
            if moved != before {
                self.report_move(moved.as_deref());
                before = moved;
            }
        }
    }

    fn report_move(&self, moved: Option<&str>) {
        let Some(what) = moved else {
            tracing::info!("the database file is back at its path: writes resume");
            self.health.forget(FILE);
            return;
        };
        let advice = format!(
            "writes are refused until the file is back; put it back (a deleted file is still in \
             /proc/{}/fd while this process runs), or stop the service before using another file",
            std::process::id()
        );
        tracing::error!("{what}: {advice}");
        self.health
            .set(FILE, State::Failed(format!("{what}: {advice}")));
    }

    /// Reports that writes are refused because the disk is full, and when they resume.
    fn report_shortage(&self, shortage: Option<&str>, was_full: bool) {
        match shortage {
            Some(what) => {
                if !was_full {
                    tracing::error!("{what}; writes are refused until then");
                }
                self.health.set(DISK, State::Degraded(what.to_owned()));
            }
            None if was_full => {
                tracing::info!("the disk has room again: writes resume");
                self.health.forget(DISK);
            }
            None => {}
        }
    }

    /// Only a read store can be rebuilt, by its own task; every other database needs an operator.
    async fn report_damage(&self) -> Infallible {
        if self.is_copy {
            return std::future::pending().await;
        }
        let what = self.db.damaged().await;
        let advice = "stop the service and put back the newest copy of the file";
        tracing::error!(database = %self.db.path().display(), what, "the database is damaged: {advice}");
        self.health
            .set(DAMAGE, State::Failed(format!("damaged: {what}; {advice}")));
        std::future::pending().await
    }
}

/// Components in `/readyz?verbose` that need an operator.
const DAMAGE: &str = "database";
const FILE: &str = "database file";
/// A component in `/readyz?verbose` that recovers automatically.
const DISK: &str = "disk";
