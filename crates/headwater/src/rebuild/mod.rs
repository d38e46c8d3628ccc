//! Folding a read store anew, beside the one that serves.
//!
//! # What
//!
//! A read store is nothing but a fold of its sources' events, so it can always be made again:
//! because `apply` has changed ([`Projection::VERSION`] was raised), because the file is damaged,
//! or because an operator wants it (`headwater rebuild purchases`). The live store serves and
//! keeps up meanwhile, and no read fails:
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
//! `headwater verify` is the first two steps, and then throws the new file away.
//!
//! # When it is killed
//!
//! At every moment a start finds one whole store under the old name, the old or the new one. A new
//! one that was not finished is found by its number and folded on: its checkpoints are in it.
//!
//! # What it does not do
//!
//! A new fold that cannot apply events that the live store has applied is not swapped in: the
//! program is likely at fault, and the live store is the better one. It says so and waits.
//! What an operator has paused is not folded anew because an operator wants it: he would get past
//! the pause. A new version and damage do not wait for him; the new store is paused where it takes over.
//! A projection that shares a database with what its service owns cannot be rebuilt: the file is
//! more than a copy.

mod align;
mod compare;
mod handle;
mod thread;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::database::{Database, Inspection};
use crate::health::{Health, State};
use crate::operator::{Differences, FoldState, FoldStatus, Then};
use crate::projection::{self, Config, Held, Live, Projection, Runner, dead_letter, pause};
use crate::stream;
use handle::begun;
use thread::on_thread;

pub(crate) use handle::Handle;

/// How often a fold is looked at: whether it has caught up.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// The pause after a fold that failed, before damage makes it start over.
const FAILED_PAUSE: Duration = Duration::from_secs(10);

/// For how long it is tried to bring both stores to one place: longer than a reader takes to see
/// that its stream is another one now.
const ALIGN_WITHIN: Duration = Duration::from_secs(30);

/// The pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);

/// How long the live store is held until the new one is as far.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// How far behind the live store the new one may be when that one is held for it: half as long as
/// it is held at most.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// Folds the read store of the projection `P` anew when it has to be.
#[derive(Debug)]
pub(crate) struct Rebuilder<P> {
    live: Live<P>,
    /// The version of the live store's tables.
    version: u32,
    requests: mpsc::Receiver<Then>,
    status: Arc<watch::Sender<FoldStatus>>,
}

impl<P: Projection> Rebuilder<P> {
    /// For the store that `live` folds, whose tables are of `version`.
    pub(crate) fn new(live: Live<P>, version: u32) -> (Self, Handle) {
        let (sender, requests) = mpsc::channel(1);
        // Those that alerts look at are there from the start.
        metrics::counter!("headwater_rebuilds_total", "projection" => P::NAME).increment(0);
        let idle = FoldStatus {
            state: FoldState::Idle,
            ..begun(Then::Swap, String::new())
        };
        let status = Arc::new(watch::Sender::new(idle));
        let handle = Handle {
            requests: sender,
            status: Arc::clone(&status),
        };
        let rebuilder = Self {
            live,
            version,
            requests,
            status,
        };
        rebuilder.report_idle();
        (rebuilder, handle)
    }

    /// Runs until `stop`.
    ///
    /// # Errors
    /// None; the type is the supervisor's.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        stop.run_until_cancelled(Box::pin(self.run_on())).await;
        Ok(())
    }

    async fn run_on(&mut self) {
        if self.version != P::VERSION {
            let reason = format!(
                "its tables are of version {}, the program's of {}",
                self.version,
                P::VERSION
            );
            self.fold(Then::Swap, Some(reason)).await;
        } else if self.live.db().has_unfinished().unwrap_or(false) {
            let reason = "a rebuild was interrupted".to_owned();
            self.fold(Then::Swap, Some(reason)).await;
        }
        self.check();
        loop {
            tokio::select! {
                Some(then) = self.requests.recv() => self.fold(then, None).await,
                what = self.live.db().damaged() => {
                    self.fold(Then::Swap, Some(format!("the live store is damaged: {what}"))).await;
                    if self.status.borrow().state == FoldState::Failed {
                        tokio::time::sleep(FAILED_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Looks through the live file on a thread of its own.
    fn check(&self) {
        let db = self.live.db().clone();
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

    /// Folds a new store; `reason` where no operator asked for it.
    async fn fold(&mut self, then: Then, reason: Option<String>) {
        if let Some(reason) = reason {
            self.status.send_replace(begun(then, reason));
        }
        let reason = self.status.borrow().reason.clone();
        tracing::info!(
            projection = P::NAME,
            ?then,
            reason,
            "folding a new store beside the live one"
        );
        let folded = self.fold_to_end(then).await;
        self.status.send_modify(|status| match &folded {
            Ok(()) => status.state = FoldState::Done,
            Err(error) => {
                status.state = FoldState::Failed;
                status.message = Some(format!("{error:#}"));
            }
        });
        match folded {
            Ok(()) => {
                tracing::info!(projection = P::NAME, ?then, positions = %self.live.positions(), "folded a new store");
                if then == Then::Swap {
                    metrics::counter!("headwater_rebuilds_total", "projection" => P::NAME)
                        .increment(1);
                    self.version = P::VERSION;
                }
                self.report_idle();
            }
            Err(error) => {
                tracing::error!(
                    projection = P::NAME,
                    ?then,
                    error = format!("{error:#}"),
                    "the live store stays: a new one could not be folded"
                );
                self.report(State::Degraded(format!("the live store stays: {error:#}")));
            }
        }
    }

    async fn fold_to_end(&self, then: Then) -> anyhow::Result<()> {
        let runner = self
            .load_beside(then)
            .await
            .context("open a store beside the live one")?;
        let fold = runner.live();
        crash::point("rebuild.begun");
        let stop = CancellationToken::new();
        let mut running = pin!(runner.run(stop.clone()));
        let followed = tokio::select! {
            ended = &mut running => {
                Err(ended.err().unwrap_or_else(|| anyhow!("the fold ended by itself")))
            }
            followed = self.follow(&fold, then) => {
                stop.cancel();
                running.await.and(followed)
            }
        };
        // The runner is gone, and with it everything that writes to the new store.
        let db = fold.db().clone();
        drop(fold);
        self.remove_consumers(then).await;
        match (followed, then) {
            (Ok(held), Then::Swap) => self.swap(db, held.expect("a swap is held")).await,
            (followed, _) => {
                db.throw_away().await.context("remove the new store")?;
                followed.map(drop)
            }
        }
    }

    /// A runner over a store beside the live one, with the decisions that people made.
    async fn load_beside(&self, then: Then) -> anyhow::Result<Runner<P>> {
        let mut runner = self
            .load_over(self.live.db().open_beside(then).await?, then)
            .await?;
        if runner.version() != P::VERSION {
            // Left behind by an interrupted rebuild of another version of the program.
            let db = runner.live().db().clone();
            drop(runner);
            db.throw_away().await?;
            runner = self
                .load_over(self.live.db().open_beside(then).await?, then)
                .await?;
        }
        self.carry_over(runner.live().db()).await?;
        Ok(runner)
    }

    async fn load_over(&self, db: Database, then: Then) -> anyhow::Result<Runner<P>> {
        let projection = Arc::clone(self.live.projection());
        let config = Config::beside::<P>(purpose(then));
        // What it says of itself is said in the fold's status.
        Runner::load_any(
            projection,
            db,
            self.live.bus().clone(),
            Health::new(),
            config,
        )
        .await
    }

    /// Takes what people decided, which no event tells of, from the live store to `next`.
    async fn carry_over(&self, next: &Database) -> anyhow::Result<()> {
        let (from, to) = (self.live.db().path(), next.path());
        let carried = on_thread("carry-over", move || dead_letter::carry_over(&from, &to));
        match carried.await {
            Ok(()) => Ok(()),
            Err(error) if !self.live.db().is_damaged() => {
                Err(error).context("take the discarded dead letters along")
            }
            // A damaged store may not even give these.
            Err(error) => {
                tracing::warn!(
                    projection = P::NAME,
                    error = format!("{error:#}"),
                    "discarded dead letters could not be taken along: they are parked again"
                );
                Ok(())
            }
        }
    }

    /// Waits until the new store has caught up, compares it, and for a swap holds the live one
    /// where the new one is as far.
    async fn follow(&self, fold: &Live<P>, then: Then) -> anyhow::Result<Option<Held>> {
        self.caught_up(fold).await;
        self.status
            .send_modify(|status| status.state = FoldState::Comparing);
        let compared = self.compare(fold).await;
        match (compared, then) {
            (Ok((differences, held)), _) => {
                if differences.count > 0 {
                    tracing::error!(projection = P::NAME, differences = differences.count, first = ?differences.rows.first(), "the live store differs from a fold of the events");
                }
                self.status.send_modify(|status| {
                    status.differences = Some(differences);
                    status.held_us = Some(u64::try_from(held.as_micros()).unwrap_or(u64::MAX));
                });
            }
            (Err(error), Then::Compare) => return Err(error.context("compare both stores")),
            (Err(error), Then::Swap) => {
                let message = format!("not compared: {error:#}");
                tracing::warn!(
                    projection = P::NAME,
                    message,
                    "a new store is swapped in without comparing it"
                );
                self.status
                    .send_modify(|status| status.message = Some(message));
            }
        }
        if then == Then::Compare {
            return Ok(None);
        }
        self.carry_over(fold.db()).await?;
        self.ensure_no_worse(fold).await?;
        crash::point("rebuild.compared");
        Ok(Some(self.hold_behind(fold).await))
    }

    /// Waits until `fold` is whole and so little behind the live store that this one can be held
    /// for it: under writes it is never quite as far.
    async fn caught_up(&self, fold: &Live<P>) {
        let mut target = (self.live.positions(), Instant::now());
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            let (positions, live) = (fold.positions(), self.live.positions());
            self.report(State::Degraded(format!(
                "folding anew: at {positions} of {live}"
            )));
            self.status.send_modify(|status| {
                status.positions = positions.clone();
                status.live = live.clone();
            });
            if !live.reach(&target.0) {
                // A source has begun another life, which counts from 1 again.
                target = (live.clone(), Instant::now());
            }
            if fold.is_complete() && positions.reach(&target.0) {
                if target.1.elapsed() <= BEHIND_MAX {
                    return;
                }
                target = (live, Instant::now());
            }
        }
    }

    /// What the two differ in at the same place, and for how long that held the live store.
    async fn compare(&self, fold: &Live<P>) -> anyhow::Result<(Differences, Duration)> {
        if self.version != P::VERSION {
            bail!("the live store is of version {}", self.version);
        }
        if self.live.db().is_damaged() {
            bail!("the live store is damaged");
        }
        let began = Instant::now();
        let (stores, held) = loop {
            match align::snapshots(&self.live, fold).await {
                Ok(snapshots) => break snapshots,
                Err(error) if began.elapsed() >= ALIGN_WITHIN => return Err(error),
                Err(error) => tracing::debug!(
                    projection = P::NAME,
                    error = format!("{error:#}"),
                    "not at one place yet"
                ),
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        };
        let compared = on_thread("compare", move || stores.differences(P::NAME, P::CONTENT));
        Ok((compared.await?, held))
    }

    /// Refuses a fold that could not apply what the live store has applied, unless that one is
    /// broken anyway.
    async fn ensure_no_worse(&self, fold: &Live<P>) -> anyhow::Result<()> {
        if !self.live.is_complete() || self.live.db().is_damaged() {
            return Ok(());
        }
        let (live, next) = (self.live.db().path(), fold.db().path());
        let worse = on_thread("compare", move || dead_letter::only_in(&next, &live)).await?;
        match worse {
            None => Ok(()),
            Some(event) => bail!(
                "this program cannot apply {event}, which the live store has applied; mend the \
                 program and begin again"
            ),
        }
    }

    /// Holds the live store, and waits until the new one is at least as far.
    async fn hold_behind(&self, fold: &Live<P>) -> Held {
        loop {
            let held = self.live.gate().hold().await;
            let deadline = tokio::time::Instant::now() + HOLD_MAX;
            while tokio::time::Instant::now() < deadline {
                if self.is_overtaken_by(fold).await {
                    return held;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(held);
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Whether `fold` is at least as far as the live store, which is held. By the places in the
    /// streams: positions say nothing of another life of a source, nor of events by hand.
    async fn is_overtaken_by(&self, fold: &Live<P>) -> bool {
        if self.live.db().is_damaged() {
            // It may not be readable any more; what it was last at is remembered.
            return fold.positions().reach(&self.live.positions());
        }
        match (
            align::places_of(&self.live).await,
            align::places_of(fold).await,
        ) {
            (Ok(live), Ok(fold)) => align::is_as_far(&fold, &live),
            _ => false,
        }
    }

    /// Lets the new store serve; the live projection goes on with it.
    async fn swap(&self, db: Database, held: Held) -> anyhow::Result<()> {
        let live = self.live.db();
        self.carry_pause(&db).await?;
        let old = live.switch_to(db)?;
        let at = live
            .read(|snapshot| projection::as_of::<P>(snapshot))
            .await?;
        self.live.note_swapped(at);
        drop(held);
        crash::point("rebuild.swapped");
        tracing::info!(projection = P::NAME, path = %live.path().display(), "the new store serves");
        old.retire().await;
        let projection = Arc::clone(self.live.projection());
        let retried = live
            .write(move |tx| dead_letter::retry_unblocked(&*projection, tx))
            .await;
        if let Err(error) = retried {
            tracing::warn!(projection = P::NAME, %error, "what waited behind a discarded event waits on: retry it");
        }
        Ok(())
    }

    /// Has the store that takes over know whether the projection is paused: no event tells of it.
    async fn carry_pause(&self, next: &Database) -> anyhow::Result<()> {
        let pause = self.live.gate().pause();
        let saved = next.write(move |tx| pause::save(tx, P::NAME, pause.as_ref()));
        match saved.await {
            Ok(_) => Ok(()),
            Err(error) => Err(anyhow!("{error}")).context("take the pause along"),
        }
    }

    /// The consumers of the second runner are of no use any more.
    async fn remove_consumers(&self, then: Then) {
        let name = Config::beside::<P>(purpose(then)).consumer;
        for source in P::SOURCES {
            if let Ok(Some(stream)) = stream::find(self.live.bus(), source).await {
                // One that is not there needs no removing.
                let _ = stream.delete_consumer(&name).await;
            }
        }
    }

    fn report_idle(&self) {
        let path = self.live.db().path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.report(State::Ok(format!("{name} serves")));
    }

    fn report(&self, state: State) {
        self.live.health().set(&format!("{} store", P::NAME), state);
    }
}

fn purpose(then: Then) -> &'static str {
    match then {
        Then::Swap => "rebuild",
        Then::Compare => "verify",
    }
}
