//! Rebuilds a projection beside the live one.
//!
//! # What
//!
//! A projection's tables are nothing but a fold of its sources' events, so they can always be made
//! again: because `apply` has changed ([`Projection::VERSION`] was raised), because the file is
//! damaged, or because an operator wants it (`headwater rebuild purchases`). The live store serves
//! and keeps up meanwhile, and no read fails:
//!
//! 1. A new file is folded from the first event on, by a second runner with consumers of its own.
//! 2. When it has caught up, both are held at the same place for some milliseconds, a snapshot of
//!    each is taken, and the two are **compared** row by row while both go on. Where they differ,
//!    the live one was altered, or `apply` is not a pure fold: it is said, with the rows.
//! 3. The live one is held once more until the new one is at least as far, so that no reader is
//!    thrown back, and the new file takes its place: on the disk by one `rename` of a link, in the
//!    process by exchanging what the [`Database`] handle leads to. Reads under way end on the old
//!    file; it is removed after the last of them.
//!
//! `headwater verify` is the first two steps, and then throws the new file away. What it folds is
//! what the **outboxes** have: events with a position are taken from there, wherever they lie in
//! the stream, and events by hand from the stream. It never goes further than the live store, so
//! that it has something to compare also where that one stands still.
//!
//! # In a database that holds more
//!
//! Where a service keeps its own data in the same file (the catalogue of `orders`), the file cannot
//! be exchanged. Its third step is another one: both are held at the same place, and the rows of
//! [`Projection::TABLES`] that differ are changed in the live file, with the projection's progress
//! and dead letters. The service writes on meanwhile, and waits for at most `CHANGES_MAX` rows at a
//! time. Up to so many differing rows are one transaction; more are several, at the same place of
//! the streams, and the new version counts with the last of them.
//!
//! # When it is killed
//!
//! At every moment a start finds one whole store under the old name, the old or the new one. A new
//! one that was not finished is found by its number and folded on: its checkpoints are in it. So is
//! one that was being merged into a database that holds more: the rows that still differ follow.
//!
//! # When it waits
//!
//! A fold that cannot go on in a source says so in its status. A rebuild waits on until it is
//! stopped (`fold.stop`); a comparison gives up after `PATIENCE`.
//!
//! # What it does not do
//!
//! A new fold that cannot apply events that the live store has applied is not swapped in: the
//! program is likely at fault, and the live store is the better one. It says so and waits.
//! What an operator has paused is not folded anew because an operator wants it: he would get past
//! the pause. A new version and damage do not wait for him; the new store is paused where it takes over.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
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
use crate::handle::{Handle, Stop, begun};
use crate::thread::on_thread;

/// The pause after a fold that failed, before damage makes it start over.
const FAILED_PAUSE: Duration = Duration::from_secs(10);

/// Rebuilds the projection `P` when it has to be, and compares it when an operator wants it.
#[derive(Debug)]
pub struct Rebuilder<P> {
    fold: Attempt<P>,
    requests: mpsc::Receiver<RebuildPurpose>,
}

impl<P: Projection> Rebuilder<P> {
    /// For the `store` that `live` folds, whose tables are of `version`.
    pub fn new(live: RunnerHandle<P>, version: u32, store: Store) -> (Self, Handle) {
        let (sender, requests) = mpsc::channel(1);
        // Those that alerts look at are there from the start.
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
        let fold = Attempt {
            live,
            store,
            version,
            status,
            stop: handle.stop.clone(),
        };
        let rebuilder = Self { fold, requests };
        rebuilder.report_idle();
        (rebuilder, handle)
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// None; the type is the supervisor's.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(Box::pin(self.run_on())).await;
        Ok(())
    }

    async fn run_on(&mut self) {
        if let Some(reason) = self.reason_at_start() {
            self.rebuild(reason).await;
        }
        let is_copy = self.fold.store == Store::Copy;
        if is_copy {
            self.check();
        }
        loop {
            tokio::select! {
                Some(then) = self.requests.recv() => self.fold(then).await,
                // What a service owns nobody can make again.
                what = self.fold.live.db().damaged(), if is_copy => {
                    self.rebuild(format!("the live store is damaged: {what}")).await;
                    if self.fold.status.borrow().state == RebuildState::Failed {
                        tokio::time::sleep(FAILED_PAUSE).await;
                    }
                }
                // At a stop whoever asks may end first.
                else => std::future::pending().await,
            }
        }
    }

    /// Why it has to be rebuilt at once, if it has to.
    fn reason_at_start(&self) -> Option<String> {
        let (version, db) = (self.fold.version, self.fold.live.db());
        if version != P::VERSION {
            let program = P::VERSION;
            return Some(format!(
                "its tables are of version {version}, the program's of {program}"
            ));
        }
        let is_unfinished = db.has_unfinished(self.fold.shared()).unwrap_or(false);
        is_unfinished.then(|| "a rebuild was interrupted".to_owned())
    }

    /// Folds a new store that takes over, although no operator asked for it.
    async fn rebuild(&mut self, reason: String) {
        self.fold.stop.renew();
        self.fold
            .status
            .send_replace(begun(RebuildPurpose::Rebuild, reason));
        self.fold(RebuildPurpose::Rebuild).await;
    }

    /// Looks through the live file on a thread of its own.
    fn check(&self) {
        let db = self.fold.live.db().clone();
        let look = move || {
            let damage = match Inspection::open(&db.path()) {
                Ok(file) => file.damage(),
                Err(error) => Some(error.to_string()),
            };
            if let Some(damage) = damage {
                db.note_damage(&damage);
            }
        };
        // Nobody waits for it: what it finds is noted.
        drop(on_thread("check", look));
    }

    /// Folds a new store.
    async fn fold(&mut self, then: RebuildPurpose) {
        let reason = self.fold.status.borrow().reason.clone();
        tracing::info!(
            projection = P::NAME,
            ?then,
            reason,
            "folding a new store beside the live one"
        );
        match self.fold.to_end(then).await {
            Ok(()) => self.note_done(then),
            Err(error) => self.note_failed(then, &error),
        }
    }

    fn note_done(&mut self, then: RebuildPurpose) {
        let at = self.fold.live.positions();
        tracing::info!(projection = P::NAME, ?then, positions = %at, "folded a new store");
        self.fold.status.send_modify(|status| {
            status.waiting.clear();
            status.state = RebuildState::Done;
            if then == RebuildPurpose::Rebuild {
                (status.positions, status.live) = (at.clone(), at);
            }
        });
        if then == RebuildPurpose::Rebuild {
            metrics::counter!("headwater_rebuilds_total", "projection" => P::NAME).increment(1);
            self.fold.version = P::VERSION;
        }
        self.note_verified(then);
        self.report_idle();
    }

    fn note_failed(&self, then: RebuildPurpose, error: &anyhow::Error) {
        self.fold.status.send_modify(|status| {
            status.waiting.clear();
            status.state = RebuildState::Failed;
            status.message = Some(causes(error));
        });
        // Nothing is known to be wrong with the live store, and whoever asked is told.
        if then == RebuildPurpose::Verify || self.fold.stop.now().is_cancelled() {
            tracing::warn!(
                projection = P::NAME,
                ?then,
                reason = format!("{error:#}"),
                "the fold beside the live store ended early"
            );
            return self.report_idle();
        }
        tracing::error!(
            projection = P::NAME,
            ?then,
            error = format!("{error:#}"),
            "the live store stays: a new one could not be folded"
        );
        let why = format!("the live store stays: {}", causes(error));
        self.fold.report(State::Degraded(why));
    }

    /// Notes when everything was found to agree.
    fn note_verified(&self, then: RebuildPurpose) {
        let status = self.fold.status.borrow();
        let is_same = status
            .differences
            .as_ref()
            .is_some_and(|found| found.count == 0);
        if then == RebuildPurpose::Rebuild || status.is_partial || !is_same {
            return;
        }
        drop(status);
        let db = self.fold.live.db();
        if let Err(error) = Verified::of(db, P::NAME).note(db.clock().now_ms()) {
            tracing::warn!(projection = P::NAME, %error, "note that all agrees");
        }
    }

    fn report_idle(&self) {
        let path = self.fold.live.db().path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.fold.report(State::Ok(format!("{name} serves")));
    }
}

/// Errors where the tables of `P`, which are in a database that holds more, cannot be rebuilt.
pub async fn check_tables<P: Projection>(db: &Database) -> anyhow::Result<()> {
    let name = P::NAME;
    ensure!(
        !P::TABLES.is_empty(),
        "the projection {name} does not name its TABLES: its database holds more, which a rebuild \
         must not touch"
    );
    let path = db.path();
    let look = move || changes::check(Inspection::open(&path)?.connection(), P::TABLES);
    let fault = on_thread("check", look)
        .await
        .context("look at its tables")?;
    match fault {
        None => Ok(()),
        Some(fault) => bail!("the projection {name} cannot be rebuilt: {fault}"),
    }
}
