//! Rebuilds a projection next to the live one.
//!
//! # What
//!
//! A projection's tables contain only what its sources' events give, so they can always be rebuilt:
//! because `apply` has changed ([`Projection::VERSION`] was raised), because the file is damaged,
//! or because an operator requests it (`headwater rebuild purchases`). Meanwhile the live store
//! serves and keeps up, and no read fails:
//!
//! 1. A second runner with its own consumers applies all events, from the first on, to a new file.
//! 2. When the new store has caught up, both stores stop at the same sequences for some
//!    milliseconds. A snapshot of each is taken, and the snapshots are **compared** row by row
//!    while both stores continue. If they differ, the live store was altered, or `apply` is not a
//!    pure function of the events. The rows are reported.
//! 3. The live store stops again until the new one is at least as far, so that no reader moves back
//!    in time. Then the files are swapped: on the disk by one `rename` of a link, in the process by
//!    exchanging the file behind the [`Database`] handle. Reads in progress finish on the old file,
//!    which is removed after the last of them.
//!
//! `headwater verify` does the first two steps and then removes the new file. It applies what the
//! **outboxes** have: events with a position come from there, wherever they are in the stream;
//! events published by hand come from the stream. The new store never gets further than the live
//! one, so they can be compared even if the live one has stopped.
//!
//! A **replay** shows what one event does: the new store reads the streams up to the event, applies
//! it alone, and is removed. The rows are those of a snapshot before and one after it.
//!
//! # In a database that holds more
//!
//! If a service keeps its own data in the same file (the catalogue of `orders`), the file cannot be
//! swapped. Instead, both stores stop at the same sequences, and the rows of [`Projection::TABLES`]
//! that differ are changed in the live file, with the projection's progress and dead letters. The
//! service continues to write, and waits for at most `CHANGES_MAX` rows at a time. Up to
//! `CHANGES_MAX` differing rows are one transaction. More are several transactions, at the same
//! sequences, and the last one stores the new version.
//!
//! # When the process is killed
//!
//! At every moment a start finds one complete store under the old name, the old or the new one. An
//! unfinished new store is found by its number and continued from its checkpoints. An unfinished
//! merge into a database that holds more continues with the rows that still differ.
//!
//! # When it waits
//!
//! A rebuild that cannot read on in a source reports that in its status. It waits until it is
//! stopped (`fold.stop`); a comparison gives up after `PATIENCE`.
//!
//! # What it does not do
//!
//! A new store that could not apply events that the live store has applied is not swapped in: the
//! program is probably at fault, and the live store is the better one. The rebuild reports this and
//! waits. A manual rebuild of a paused projection is refused, because it would bypass the pause. A
//! new version and damage do not wait for a resume; the new store is paused when it replaces the
//! old one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use headwater_nats::control::{RebuildPurpose, RebuildState, RebuildStatus};
use headwater_projection::projection::Projection;
use headwater_projection::runner::RunnerHandle;
use headwater_store::Database;
use headwater_store::connection::Inspection;
use headwater_store::verified::Verified;
use headwater_telemetry::causes;
use headwater_telemetry::health::State;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::attempt::{Attempt, Store};
use crate::changes;
use crate::error::Error;
use crate::handle::{Handle, Stop, Task, begun};
use crate::thread::on_thread;

/// The pause after a failed attempt, before damage causes another.
const FAILED_PAUSE: Duration = Duration::from_secs(10);

/// Rebuilds the projection `P` if necessary, and compares it on an operator's request.
#[derive(Debug)]
pub struct Rebuilder<P> {
    attempt: Attempt<P>,
    requests: mpsc::Receiver<Task>,
}

impl<P: Projection> Rebuilder<P> {
    /// A rebuilder of the `store` of `live`, whose tables are of `version`.
    pub fn new(live: RunnerHandle<P>, version: u32, store: Store) -> (Self, Handle) {
        let (sender, requests) = mpsc::channel(1);
        // Counters that alerts watch exist from the start.
        metrics::counter!("headwater_rebuilds_total", "projection" => P::NAME).increment(0);
        let idle = RebuildStatus {
            state: RebuildState::Idle,
            ..begun(RebuildPurpose::Rebuild, String::new())
        };
        let status = Arc::new(watch::Sender::new(idle));
        let handle = Handle {
            requests: sender,
            status: Arc::clone(&status),
            stop: Stop::default(),
        };
        let attempt = Attempt {
            live,
            store,
            version,
            status,
            stop: handle.stop.clone(),
        };
        let rebuilder = Self { attempt, requests };
        rebuilder.report_idle();
        (rebuilder, handle)
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// None; the type is the supervisor's.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        stop.run_until_cancelled(Box::pin(self.run_on())).await;
        Ok(())
    }

    async fn run_on(&mut self) {
        if let Some(reason) = self.reason_at_start() {
            self.rebuild(reason).await;
        }
        let is_copy = self.attempt.store == Store::Copy;
        if is_copy {
            self.check();
        }
        loop {
            tokio::select! {
                Some(task) = self.requests.recv() => self.build(&task).await,
                // A service's own data cannot be rebuilt.
                what = self.attempt.live.db().damaged(), if is_copy => {
                    self.rebuild(format!("the live store is damaged: {what}")).await;
                    if self.attempt.status.borrow().state == RebuildState::Failed {
                        tokio::time::sleep(FAILED_PAUSE).await;
                    }
                }
                // At a stop, the holders of the handle may end first.
                else => std::future::pending().await,
            }
        }
    }

    /// Why it must be rebuilt at once, if it must.
    fn reason_at_start(&self) -> Option<String> {
        let (version, db) = (self.attempt.version, self.attempt.live.db());
        if version != P::VERSION {
            let program = P::VERSION;
            return Some(format!(
                "its tables are of version {version}, the program has version {program}"
            ));
        }
        let is_unfinished = db.has_unfinished(self.attempt.shared()).unwrap_or(false);
        is_unfinished.then(|| "a rebuild was interrupted".to_owned())
    }

    /// Builds a new store and swaps it in, without an operator's request.
    async fn rebuild(&mut self, reason: String) {
        self.attempt.stop.renew();
        self.attempt
            .status
            .send_replace(begun(RebuildPurpose::Rebuild, reason));
        self.build(&Task::Rebuild).await;
    }

    /// Checks the live file on its own thread.
    fn check(&self) {
        let db = self.attempt.live.db().clone();
        let look = move || {
            let damage = match Inspection::open(&db.path()) {
                Ok(file) => file.damage(),
                Err(error) => Some(error.to_string()),
            };
            if let Some(damage) = damage {
                db.note_damage(&damage);
            }
        };
        // Nothing waits for the check: it records what it finds.
        drop(on_thread("check", look));
    }

    /// Builds a new store.
    async fn build(&mut self, task: &Task) {
        let purpose = task.purpose();
        let reason = self.attempt.status.borrow().reason.clone();
        tracing::info!(
            projection = P::NAME,
            ?purpose,
            reason,
            "building a new store next to the live one"
        );
        match self.attempt.to_end(task).await {
            Ok(()) => self.note_done(purpose),
            Err(error) => self.note_failed(purpose, &error),
        }
    }

    fn note_done(&mut self, purpose: RebuildPurpose) {
        let at = self.attempt.live.positions();
        tracing::info!(projection = P::NAME, ?purpose, positions = %at, "built a new store");
        self.attempt.status.send_modify(|status| {
            status.waiting.clear();
            status.state = RebuildState::Done;
            if purpose == RebuildPurpose::Rebuild {
                (status.positions, status.live) = (at.clone(), at);
            }
        });
        if purpose == RebuildPurpose::Rebuild {
            metrics::counter!("headwater_rebuilds_total", "projection" => P::NAME).increment(1);
            self.attempt.version = P::VERSION;
        }
        self.note_verified(purpose);
        if purpose != RebuildPurpose::Replay {
            self.report_idle();
        }
    }

    fn note_failed(&self, purpose: RebuildPurpose, error: &anyhow::Error) {
        self.attempt.status.send_modify(|status| {
            status.waiting.clear();
            status.state = RebuildState::Failed;
            status.message = Some(causes(error.as_ref()));
        });
        // The live store has no known fault, and the caller gets the error.
        if purpose != RebuildPurpose::Rebuild || self.attempt.stop.now().is_cancelled() {
            tracing::warn!(
                projection = P::NAME,
                ?purpose,
                reason = causes(error.as_ref()),
                "a rebuild, comparison or replay ended early: the live store stays"
            );
            if purpose != RebuildPurpose::Replay {
                self.report_idle();
            }
            return;
        }
        tracing::error!(
            projection = P::NAME,
            ?purpose,
            error = causes(error.as_ref()),
            "the live store stays: a new one could not be built"
        );
        let why = format!("the live store stays: {}", causes(error.as_ref()));
        self.attempt.report(State::Degraded(why));
    }

    /// Records when everything was found equal.
    fn note_verified(&self, purpose: RebuildPurpose) {
        let status = self.attempt.status.borrow();
        let is_same = status
            .differences
            .as_ref()
            .is_some_and(|found| found.count == 0);
        if purpose != RebuildPurpose::Verify || status.is_partial || !is_same {
            return;
        }
        drop(status);
        let db = self.attempt.live.db();
        if let Err(error) = Verified::of(db, P::NAME).note(db.clock().now_ms()) {
            tracing::warn!(projection = P::NAME, %error, "could not record a successful verification");
        }
    }

    fn report_idle(&self) {
        let path = self.attempt.live.db().path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.attempt.report(State::Ok(format!("{name} serves")));
    }
}

/// Fails if the tables of `P`, in a database that holds more, cannot be rebuilt.
///
/// # Errors
/// See [`Error`].
pub async fn check_tables<P: Projection>(db: &Database) -> Result<(), Error> {
    let projection = P::NAME;
    if P::TABLES.is_empty() {
        return Err(Error::NoTables { projection });
    }
    let path = db.path();
    let look = move || changes::check(Inspection::open(&path)?.connection(), P::TABLES);
    match on_thread("check", look).await? {
        None => Ok(()),
        Some(fault) => Err(Error::UnfitTable { projection, fault }),
    }
}
