//! Watching over the database file: that it is where it was opened, whole, and has room.

use std::convert::Infallible;
use std::time::Duration;

use headwater_store::{Database, Lock};
use headwater_telemetry::health::{Health, State};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether the database file is where it was opened.
const LOOK_AT_FILE: Duration = Duration::from_secs(1);

/// Watches over the database file.
pub(crate) struct FileWatch {
    pub(crate) db: Database,
    pub(crate) lock: Option<Lock>,
    pub(crate) health: Health,
    pub(crate) is_copy: bool,
}

impl FileWatch {
    /// Says when the file is damaged or was moved, and keeps other processes away, until `stop`.
    /// What can still be read is read on: a person decides when to put a file back.
    ///
    /// # Errors
    /// The lock file was removed, and another process has the database open now.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let watched = stop.run_until_cancelled(async {
            tokio::select! {
                error = self.look() => error,
                never = self.tell_of_damage() => match never {},
            }
        });
        watched.await.map_or(Ok(()), Err)
    }

    /// Looks at the file and its lock again and again; gives why it cannot go on.
    async fn look(&self) -> anyhow::Error {
        let (mut before, mut was_full) = (None, false);
        loop {
            let shortage = self.db.shortage();
            self.tell_of_room(shortage.as_deref(), was_full);
            was_full = shortage.is_some();
            tokio::time::sleep(LOOK_AT_FILE).await;
            if let Some(Err(error)) = self.lock.as_ref().map(Lock::keep) {
                return error;
            }
            let moved = self.db.moved();
            if moved != before {
                self.tell_of_move(moved.as_deref());
                before = moved;
            }
        }
    }

    fn tell_of_move(&self, moved: Option<&str>) {
        let Some(what) = moved else {
            tracing::info!("the database file is back where it was opened: writes go on");
            self.health.forget(FILE);
            return;
        };
        let advice = format!(
            "nothing is written until it is back; put it back (one that was deleted is still in \
             /proc/{}/fd as long as this process runs), or stop the service first to use another",
            std::process::id()
        );
        tracing::error!("{what}: {advice}");
        self.health
            .set(FILE, State::Failed(format!("{what}: {advice}")));
    }

    /// Says that writes are refused for want of room, and when they go on.
    fn tell_of_room(&self, shortage: Option<&str>, was_full: bool) {
        match shortage {
            Some(what) => {
                if !was_full {
                    tracing::error!("{what}; writes are refused until then");
                }
                self.health.set(DISK, State::Degraded(what.to_owned()));
            }
            None if was_full => {
                tracing::info!("there is room on the disk again: writes go on");
                self.health.forget(DISK);
            }
            None => {}
        }
    }

    /// A copy's own task rebuilds it; nobody can make anything else again.
    async fn tell_of_damage(&self) -> Infallible {
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

/// The names of the lines in `/readyz?verbose`, there where a person must act.
const DAMAGE: &str = "database";
const FILE: &str = "database file";
/// And where it goes on by itself.
const DISK: &str = "disk";
