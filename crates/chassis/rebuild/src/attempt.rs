//! One attempt to build a new store: follows it until it has caught up, compares it, swaps it in.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use headwater_event::Positions;
use headwater_nats::control::{RebuildPurpose, RebuildState, RebuildStatus};
use headwater_nats::stream;
use headwater_projection::barrier::BarrierGuard;
use headwater_projection::dead_letter;
use headwater_projection::dead_letter::retry::Which;
use headwater_projection::projection::Projection;
use headwater_projection::runner::{Config, Runner, RunnerHandle};
use headwater_store::{Beside, Database};
use headwater_telemetry::causes;
use headwater_telemetry::crash;
use headwater_telemetry::health::{Health, State};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::align::{self, Aligned, Sequences};
use crate::compare::{At, Stores};
use crate::handle::{Stop, Task};
use crate::take_over;
use crate::thread::on_thread;

/// How often to check whether the new store has caught up.
pub(crate) const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// How long to try to align both stores: longer than a reader takes to notice that its stream was
/// recreated.
const ALIGN_WITHIN: Duration = Duration::from_secs(30);

/// The pause between two attempts to align.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);

/// How long two stores must be at the same sequences and different positions before that counts as
/// a difference. A store that reads a stream again from its beginning has different positions too,
/// but moves.
const STANDS: Duration = Duration::from_secs(3);

/// How long a comparison waits for a source that it cannot read on in, and for a new store that
/// does not move although it waits for nothing.
const PATIENCE: Duration = Duration::from_secs(15);
const STANDSTILL: Duration = Duration::from_secs(30);

/// How long the live store is stopped until the new one is as far.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// How far behind the live store the new one may be when the live one is stopped: half the longest
/// stop.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// The file that holds a projection's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// A read store: it holds only the projection. The whole file is swapped.
    Copy,
    /// The database of a service, which keeps other data in it. Rows that differ are changed in
    /// place.
    Shared,
}

/// Builds a new store next to the live one.
#[derive(Debug)]
pub(crate) struct Attempt<P> {
    pub(crate) live: RunnerHandle<P>,
    pub(crate) store: Store,
    /// The version of the live store's tables.
    pub(crate) version: u32,
    pub(crate) status: Arc<watch::Sender<RebuildStatus>>,
    pub(crate) stop: Stop,
}

/// A new store that is ready to replace the live one, with the guards in place.
#[derive(Debug)]
enum Caught {
    /// The live store is stopped, and the new one is at least as far.
    Behind(BarrierGuard),
    /// Both are stopped at the same sequences.
    Level(Aligned, Option<BarrierGuard>),
}

impl<P: Projection> Attempt<P> {
    /// The projection's name, if its tables are in a database that holds more.
    pub(crate) fn shared(&self) -> Option<&'static str> {
        (self.store == Store::Shared).then_some(P::NAME)
    }

    /// Builds a new store, compares it, and swaps it in if that is the purpose.
    pub(crate) async fn to_end(&self, task: &Task) -> anyhow::Result<()> {
        let purpose = task.purpose();
        let runner = self
            .load_beside(purpose)
            .await
            .context("open a new store next to the live one")?;
        let rebuilt = runner.live();
        crash::point("rebuild.begun");
        // Neither a store that must reach the same sequences as the live one gets further than that,
        // nor one for a replay further than the event.
        let is_bound = purpose != RebuildPurpose::Rebuild || self.store == Store::Shared;
        let bound = if is_bound {
            Some(rebuilt.barrier().close().await)
        } else {
            None
        };
        let stop = CancellationToken::new();
        let mut running = pin!(runner.run(stop.clone()));
        let stopped = self.stop.now();
        let followed = tokio::select! {
            ended = &mut running => {
                Err(ended.err().map_or_else(
                    || anyhow!("the new store's runner ended by itself"),
                    Into::into,
                ))
            }
            followed = stopped.run_until_cancelled(self.follow(&rebuilt, task, bound)) => {
                stop.cancel();
                let followed = followed.unwrap_or_else(|| Err(anyhow!("an operator stopped it")));
                running.await.map_err(Into::into).and(followed)
            }
        };
        // The runner has ended, so nothing writes to the new store any more.
        let db = rebuilt.db().clone();
        drop(rebuilt);
        self.remove_consumers(purpose).await;
        match followed {
            Ok(Some(caught)) => self.take_over(db, caught).await,
            followed => {
                db.throw_away().await.context("remove the new store")?;
                followed.map(drop)
            }
        }
    }

    /// Puts the new store into service, and retries letters in it that only wait.
    async fn take_over(&self, db: Database, caught: Caught) -> anyhow::Result<()> {
        match caught {
            Caught::Behind(guard) => take_over::swap(&self.live, db, guard).await?,
            Caught::Level(aligned, _bound) => {
                self.note_state(RebuildState::Merging);
                let stopped_for = take_over::merge(&self.live, &db, aligned).await?;
                self.status.send_modify(|status| {
                    status.held_us = status.held_us.max(Some(micros(stopped_for)));
                });
                db.throw_away().await.context("remove the new store")?;
            }
        }
        if let Err(error) = dead_letter::retry(&self.live, Which::Unblocked).await {
            tracing::warn!(projection = P::NAME, %error, "events that waited behind a discarded one still wait: retry them");
        }
        Ok(())
    }

    /// A runner over a new store, with the operators' decisions copied.
    async fn load_beside(&self, purpose: RebuildPurpose) -> anyhow::Result<Runner<P>> {
        let open = || self.live.db().open_beside(beside(purpose), self.shared());
        let mut runner = self.load_over(open().await?, purpose).await?;
        if !self.is_of_use(&runner).await? {
            let db = runner.live().db().clone();
            drop(runner);
            db.throw_away().await?;
            runner = self.load_over(open().await?, purpose).await?;
        }
        self.carry_over(runner.live().db()).await?;
        Ok(runner)
    }

    /// Whether an interrupted rebuild can be continued: it is of this version of the program. If
    /// both stores must reach the same sequences, the live store, which may have been restored
    /// since, must also be at least as far.
    async fn is_of_use(&self, runner: &Runner<P>) -> anyhow::Result<bool> {
        let is_current = runner.version() == P::VERSION;
        if !is_current || self.store == Store::Copy {
            return Ok(is_current);
        }
        let left = align::places_of(&runner.live()).await?;
        let live = align::places_of(&self.live).await?;
        Ok(align::is_as_far(&live, &left))
    }

    async fn load_over(&self, db: Database, purpose: RebuildPurpose) -> anyhow::Result<Runner<P>> {
        let projection = Arc::clone(self.live.projection());
        let config = Config::beside::<P>(purpose);
        // The runner's health is reported in the rebuild's status instead.
        let (bus, health) = (self.live.bus().clone(), Health::new());
        Ok(Runner::load_any(projection, db, bus, health, config).await?)
    }

    /// Copies decisions of operators, which no event carries, from the live store to `next`.
    async fn carry_over(&self, next: &Database) -> anyhow::Result<()> {
        let (from, to) = (self.live.db().path(), next.path());
        let carried = on_thread("carry-over", move || dead_letter::carry_over(&from, &to));
        match carried.await {
            Ok(()) => Ok(()),
            Err(error) if !self.live.db().is_damaged() => {
                Err(error).context("copy the discarded dead letters")
            }
            // A damaged store may not even give these.
            Err(error) => {
                tracing::warn!(
                    projection = P::NAME,
                    error = causes(&error),
                    "discarded dead letters could not be copied: they are dead letters again"
                );
                Ok(())
            }
        }
    }

    /// Waits until the new store has caught up and compares it. For a swap, stops the live store
    /// when the new one is as far.
    async fn follow(
        &self,
        rebuilt: &RunnerHandle<P>,
        task: &Task,
        bound: Option<BarrierGuard>,
    ) -> anyhow::Result<Option<Caught>> {
        let purpose = task.purpose();
        if let (Task::Replay(event), Some(bound)) = (task, &bound) {
            self.replay(rebuilt, bound, event).await?;
            return Ok(None);
        }
        self.caught_up(rebuilt, purpose, bound.as_ref()).await?;
        self.note_state(RebuildState::Comparing);
        let compared = self.compare(rebuilt, bound.as_ref()).await;
        if purpose == RebuildPurpose::Verify {
            compared.context("compare both stores")?;
            return Ok(None);
        }
        if let Err(error) = compared {
            let message = format!("not compared: {}", causes(error.as_ref()));
            tracing::warn!(
                projection = P::NAME,
                message,
                "a new store replaces the live one without being compared"
            );
            self.status
                .send_modify(|status| status.message = Some(message));
        }
        self.carry_over(rebuilt.db()).await?;
        self.ensure_no_worse(rebuilt).await?;
        crash::point("rebuild.compared");
        if self.store == Store::Copy {
            return Ok(Some(Caught::Behind(self.stop_behind(rebuilt).await)));
        }
        // It may have fallen behind during the comparison.
        self.caught_up(rebuilt, purpose, bound.as_ref()).await?;
        let (aligned, _) = self.level(rebuilt, bound.as_ref()).await?;
        Ok(Some(Caught::Level(aligned, bound)))
    }

    /// Waits until `rebuilt` is complete and so little behind the live store that the live one can
    /// be stopped for it: under writes it is never quite as far. A `bound` store need not be
    /// complete, only as far as the live one.
    ///
    /// # Errors
    /// A comparison makes no progress.
    async fn caught_up(
        &self,
        rebuilt: &RunnerHandle<P>,
        purpose: RebuildPurpose,
        bound: Option<&BarrierGuard>,
    ) -> anyhow::Result<()> {
        let mut target = self.target().await?;
        let mut moved = (Sequences::new(), Instant::now());
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            self.note_progress(rebuilt);
            let at = align::places_of(rebuilt).await?;
            if moved.0 != at {
                moved = (at.clone(), Instant::now());
            }
            if purpose == RebuildPurpose::Verify {
                ensure_moving(&rebuilt.waiting(), moved.1.elapsed())?;
            }
            if let Some(bound) = bound {
                let live = align::places_of(&self.live).await?;
                bound.let_up_to(&align::sequences(&live));
            }
            let live = self.live.positions();
            if !live.reach(&target.positions) {
                // A source has begun another epoch, which counts from 1 again.
                target = self.target().await?;
            }
            let is_there = match bound {
                Some(_) => align::is_as_far(&at, &target.places),
                None => rebuilt.is_complete() && rebuilt.positions().reach(&target.positions),
            };
            if is_there {
                if target.since.elapsed() <= BEHIND_MAX {
                    return Ok(());
                }
                target = self.target().await?;
            }
        }
    }

    /// Where the live store is now.
    async fn target(&self) -> anyhow::Result<Target> {
        let places = align::places_of(&self.live).await;
        Ok(Target {
            positions: self.live.positions(),
            // A damaged store may not give them; then they are not needed.
            places: match places {
                Err(_) if self.live.db().is_damaged() => Sequences::new(),
                places => places?,
            },
            since: Instant::now(),
        })
    }

    pub(crate) fn note_progress(&self, rebuilt: &RunnerHandle<P>) {
        let (positions, live, waiting) = (
            rebuilt.positions(),
            self.live.positions(),
            rebuilt.waiting(),
        );
        let waits: Vec<String> = waiting
            .iter()
            .map(|(source, why)| format!("; waits in {source}: {why}"))
            .collect();
        // A replay says nothing of the live store.
        if self.status.borrow().then != RebuildPurpose::Replay {
            self.report(State::Degraded(format!(
                "building a new store: at {positions} of {live}{}",
                waits.concat()
            )));
        }
        self.status.send_if_modified(|status| {
            let before = status.clone();
            (status.positions, status.live, status.waiting) = (positions, live, waiting);
            *status != before
        });
    }

    pub(crate) fn note_state(&self, state: RebuildState) {
        self.status.send_modify(|status| {
            status.state = state;
            status.waiting.clear();
        });
    }

    /// Records the differences of both stores at the same sequences, and how long the live store
    /// was stopped for that.
    async fn compare(
        &self,
        rebuilt: &RunnerHandle<P>,
        bound: Option<&BarrierGuard>,
    ) -> anyhow::Result<()> {
        if self.version != P::VERSION {
            bail!("the live store is of version {}", self.version);
        }
        if self.live.db().is_damaged() {
            bail!("the live store is damaged");
        }
        let (aligned, stores) = self.level(rebuilt, bound).await?;
        let stopped_for = aligned.took();
        drop(aligned);
        // The positions seen last while catching up are older.
        let [live, rebuilt] = stores.positions(P::NAME).context("read the positions")?;
        self.status.send_modify(|status| {
            status.positions = of_all_sources::<P>(rebuilt);
            status.live = of_all_sources::<P>(live);
        });
        let compare = move || stores.differences(P::NAME, P::CONTENT, P::TABLES);
        let found = on_thread("compare", compare).await?;
        if found.count > 0 {
            tracing::error!(projection = P::NAME, differences = found.count, first = ?found.rows.first(), "the live store differs from a rebuild of the events");
        }
        self.status.send_modify(|status| {
            status.differences = Some(found);
            status.held_us = Some(micros(stopped_for));
        });
        Ok(())
    }

    /// Stops both stores at the same sequences and takes a snapshot of each.
    ///
    /// At the same sequences they have the same positions, unless one is reading a refilled stream,
    /// or has applied an event that its source does not have.
    async fn level(
        &self,
        rebuilt: &RunnerHandle<P>,
        bound: Option<&BarrierGuard>,
    ) -> anyhow::Result<(Aligned, Stores)> {
        let began = Instant::now();
        let mut apart = None;
        loop {
            match self.try_level(rebuilt, bound).await {
                Ok((aligned, stores)) => {
                    let at = stores.positions(P::NAME).context("read the positions")?;
                    if at[0] == at[1] {
                        return Ok((aligned, stores));
                    }
                    let since = match apart {
                        Some((before, since)) if before == at => since,
                        _ => Instant::now(),
                    };
                    if since.elapsed() >= STANDS || began.elapsed() >= ALIGN_WITHIN {
                        return Ok((aligned, stores));
                    }
                    apart = Some((at, since));
                }
                Err(error) if began.elapsed() >= ALIGN_WITHIN => return Err(error),
                Err(error) => tracing::debug!(
                    projection = P::NAME,
                    error = causes(error.as_ref()),
                    "the stores are not aligned yet"
                ),
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    async fn try_level(
        &self,
        rebuilt: &RunnerHandle<P>,
        bound: Option<&BarrierGuard>,
    ) -> anyhow::Result<(Aligned, Stores)> {
        let aligned = align::align(&self.live, rebuilt, bound).await?;
        let stores = align::stores(&self.live, rebuilt).await?;
        Ok((aligned, stores))
    }

    /// Refuses a new store that could not apply what the live store has applied, unless the live
    /// store is broken anyway.
    async fn ensure_no_worse(&self, rebuilt: &RunnerHandle<P>) -> anyhow::Result<()> {
        if !self.live.is_complete() || self.live.db().is_damaged() {
            return Ok(());
        }
        let (live, next) = (self.live.db().path(), rebuilt.db().path());
        let worse = on_thread("compare", move || dead_letter::only_in(&next, &live)).await?;
        match worse {
            None => Ok(()),
            Some(event) => bail!(
                "this program cannot apply {event}, which the live store has applied; its log has \
                 the reason; fix the program and rebuild again"
            ),
        }
    }

    /// Stops the live store, and waits until the new one is at least as far.
    async fn stop_behind(&self, rebuilt: &RunnerHandle<P>) -> BarrierGuard {
        loop {
            let guard = self.live.barrier().close().await;
            let deadline = tokio::time::Instant::now() + HOLD_MAX;
            while tokio::time::Instant::now() < deadline {
                if self.is_overtaken_by(rebuilt).await {
                    return guard;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            drop(guard);
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Whether `rebuilt` is at least as far as the stopped live store. Compares sequences, because
    /// positions do not cover another epoch of a source, or events published by hand.
    async fn is_overtaken_by(&self, rebuilt: &RunnerHandle<P>) -> bool {
        if self.live.db().is_damaged() {
            // It may not be readable any more; its last positions are remembered.
            return rebuilt.positions().reach(&self.live.positions());
        }
        match (
            align::places_of(&self.live).await,
            align::places_of(rebuilt).await,
        ) {
            (Ok(live), Ok(rebuilt)) => align::is_as_far(&rebuilt, &live),
            _ => false,
        }
    }

    /// Removes the consumers of the second runner.
    async fn remove_consumers(&self, purpose: RebuildPurpose) {
        let name = Config::beside::<P>(purpose).consumer;
        for source in P::SOURCES {
            if let Ok(Some(stream)) = stream::find(self.live.bus(), source).await {
                // A missing consumer needs no removal.
                let _ = stream.delete_consumer(&name).await;
            }
        }
    }

    pub(crate) fn report(&self, state: State) {
        self.live.health().set(&format!("{} store", P::NAME), state);
    }
}

/// The positions that were found, and 0 for other sources.
fn of_all_sources<P: Projection>(found: Vec<At>) -> Positions {
    let none = P::SOURCES.iter().map(|source| ((*source).to_owned(), 0));
    let found = found.into_iter().map(|(source, _, at)| (source, at));
    Positions(none.chain(found).collect())
}

/// Where the live store was at some time.
struct Target {
    positions: Positions,
    places: Sequences,
    since: Instant,
}

/// Fails if a temporary store has made no progress for too long, with what it waits for.
pub(crate) fn ensure_moving(
    waiting: &BTreeMap<String, String>,
    still: Duration,
) -> anyhow::Result<()> {
    let waits: Vec<String> = waiting
        .iter()
        .map(|(source, why)| format!("in {source}: {why}"))
        .collect();
    ensure!(
        waits.is_empty() || still < PATIENCE,
        "it gave up: the new store has waited for {} s {}",
        still.as_secs(),
        waits.join("; ")
    );
    ensure!(
        still < STANDSTILL,
        "it gave up: the new store has not moved for {} s",
        still.as_secs()
    );
    Ok(())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Which store a rebuild for this purpose builds.
fn beside(purpose: RebuildPurpose) -> Beside {
    match purpose {
        RebuildPurpose::Rebuild => Beside::Successor,
        RebuildPurpose::Verify | RebuildPurpose::Replay => Beside::Scratch,
    }
}
