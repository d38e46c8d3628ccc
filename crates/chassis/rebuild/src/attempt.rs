//! One fold beside the live store: followed until it is as far, compared, and let take over.

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
use crate::handle::Stop;
use crate::take_over;
use crate::thread::on_thread;

/// How often a fold is looked at: whether it has caught up.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// For how long it is tried to bring both stores to one place: longer than a reader takes to see
/// that its stream is another one now.
const ALIGN_WITHIN: Duration = Duration::from_secs(30);

/// The pause between two attempts.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(300);

/// How long two stores stand at the same sequences and other positions before that is a
/// difference: one that reads a stream again from its beginning is at other positions, too, and
/// moves.
const STANDS: Duration = Duration::from_secs(3);

/// How long a comparison waits for a source that it cannot read on in; and for a fold that does not
/// move although it waits for nothing.
const PATIENCE: Duration = Duration::from_secs(15);
const STANDSTILL: Duration = Duration::from_secs(30);

/// How long the live store is held until the new one is as far.
const HOLD_MAX: Duration = Duration::from_secs(2);

/// How far behind the live store the new one may be when that one is held for it: half as long as
/// it is held at most.
const BEHIND_MAX: Duration = Duration::from_secs(1);

/// What the file is that has a projection's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// A read store: nothing but the projection's. It is exchanged as a whole.
    Copy,
    /// The database of a service, which keeps more in it. Rows that differ are changed in place.
    Shared,
}

/// Folds a new store beside the live one.
#[derive(Debug)]
pub(crate) struct Attempt<P> {
    pub(crate) live: RunnerHandle<P>,
    pub(crate) store: Store,
    /// The version of the live store's tables.
    pub(crate) version: u32,
    pub(crate) status: Arc<watch::Sender<RebuildStatus>>,
    pub(crate) stop: Stop,
}

/// What a fold has come to that takes over: where both are.
#[derive(Debug)]
enum Caught {
    /// The live one is held, and the new one is as far.
    Behind(BarrierGuard),
    /// Both are held at the same place.
    Level(Aligned, Option<BarrierGuard>),
}

impl<P: Projection> Attempt<P> {
    /// The projection, where its tables are in a database that holds more.
    pub(crate) fn shared(&self) -> Option<&'static str> {
        (self.store == Store::Shared).then_some(P::NAME)
    }

    /// Folds a new store, compares it, and lets it take over where that is the purpose.
    pub(crate) async fn to_end(&self, then: RebuildPurpose) -> anyhow::Result<()> {
        let runner = self
            .load_beside(then)
            .await
            .context("open a store beside the live one")?;
        let fold = runner.live();
        crash::point("rebuild.begun");
        let stop = CancellationToken::new();
        let mut running = pin!(runner.run(stop.clone()));
        let stopped = self.stop.now();
        let followed = tokio::select! {
            ended = &mut running => {
                Err(ended.err().unwrap_or_else(|| anyhow!("the fold ended by itself")))
            }
            followed = stopped.run_until_cancelled(self.follow(&fold, then)) => {
                stop.cancel();
                let followed = followed.unwrap_or_else(|| Err(anyhow!("an operator stopped it")));
                running.await.and(followed)
            }
        };
        // The runner is gone, and with it everything that writes to the new store.
        let db = fold.db().clone();
        drop(fold);
        self.remove_consumers(then).await;
        match followed {
            Ok(Some(caught)) => self.take_over(db, caught).await,
            followed => {
                db.throw_away().await.context("remove the new store")?;
                followed.map(drop)
            }
        }
    }

    /// Lets the new store take over, and tries what only waited in it.
    async fn take_over(&self, db: Database, caught: Caught) -> anyhow::Result<()> {
        match caught {
            Caught::Behind(held) => take_over::swap(&self.live, db, held).await?,
            Caught::Level(aligned, _bound) => {
                self.note_state(RebuildState::Merging);
                let held = take_over::merge(&self.live, &db, aligned).await?;
                self.status.send_modify(|status| {
                    status.held_us = status.held_us.max(Some(micros(held)));
                });
                db.throw_away().await.context("remove the new store")?;
            }
        }
        if let Err(error) = dead_letter::retry(&self.live, Which::Unblocked).await {
            tracing::warn!(projection = P::NAME, %error, "what waited behind a discarded event waits on: retry it");
        }
        Ok(())
    }

    /// A runner over a store beside the live one, with the decisions that people made.
    async fn load_beside(&self, then: RebuildPurpose) -> anyhow::Result<Runner<P>> {
        let open = || self.live.db().open_beside(beside(then), self.shared());
        let mut runner = self.load_over(open().await?, then).await?;
        if !self.is_of_use(&runner).await? {
            let db = runner.live().db().clone();
            drop(runner);
            db.throw_away().await?;
            runner = self.load_over(open().await?, then).await?;
        }
        self.carry_over(runner.live().db()).await?;
        Ok(runner)
    }

    /// Whether what an interrupted rebuild left can be folded on: it is of this version of the
    /// program, and the live store, which may have been put back since, is no earlier than it where
    /// both have to get to the same place.
    async fn is_of_use(&self, runner: &Runner<P>) -> anyhow::Result<bool> {
        let is_current = runner.version() == P::VERSION;
        if !is_current || self.store == Store::Copy {
            return Ok(is_current);
        }
        let left = align::places_of(&runner.live()).await?;
        let live = align::places_of(&self.live).await?;
        Ok(align::is_as_far(&live, &left))
    }

    async fn load_over(&self, db: Database, then: RebuildPurpose) -> anyhow::Result<Runner<P>> {
        let projection = Arc::clone(self.live.projection());
        let config = Config::beside::<P>(then);
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
    async fn follow(
        &self,
        fold: &RunnerHandle<P>,
        then: RebuildPurpose,
    ) -> anyhow::Result<Option<Caught>> {
        // What has to get to the same place as the live one never goes further than that.
        let is_bound = then == RebuildPurpose::Verify || self.store == Store::Shared;
        let bound = if is_bound {
            Some(fold.barrier().close().await)
        } else {
            None
        };
        self.caught_up(fold, then, bound.as_ref()).await?;
        self.note_state(RebuildState::Comparing);
        let compared = self.compare(fold, bound.as_ref()).await;
        if then == RebuildPurpose::Verify {
            compared.context("compare both stores")?;
            return Ok(None);
        }
        if let Err(error) = compared {
            let message = format!("not compared: {}", causes(&error));
            tracing::warn!(
                projection = P::NAME,
                message,
                "a new store takes over without being compared"
            );
            self.status
                .send_modify(|status| status.message = Some(message));
        }
        self.carry_over(fold.db()).await?;
        self.ensure_no_worse(fold).await?;
        crash::point("rebuild.compared");
        if self.store == Store::Copy {
            return Ok(Some(Caught::Behind(self.hold_behind(fold).await)));
        }
        // It may have fallen behind while they were compared.
        self.caught_up(fold, then, bound.as_ref()).await?;
        let (aligned, _) = self.level(fold, bound.as_ref()).await?;
        Ok(Some(Caught::Level(aligned, bound)))
    }

    /// Waits until `fold` is whole and so little behind the live store that this one can be held
    /// for it: under writes it is never quite as far. One that is `bound` need not be whole, only
    /// where the live one is.
    ///
    /// # Errors
    /// A comparison that does not get on.
    async fn caught_up(
        &self,
        fold: &RunnerHandle<P>,
        then: RebuildPurpose,
        bound: Option<&BarrierGuard>,
    ) -> anyhow::Result<()> {
        let mut target = self.target().await?;
        let mut moved = (Sequences::new(), Instant::now());
        loop {
            tokio::time::sleep(LOOK_PAUSE).await;
            self.note_progress(fold);
            let at = align::places_of(fold).await?;
            if moved.0 != at {
                moved = (at.clone(), Instant::now());
            }
            if then == RebuildPurpose::Verify {
                ensure_moving(&fold.waiting(), moved.1.elapsed())?;
            }
            if let Some(bound) = bound {
                let live = align::places_of(&self.live).await?;
                bound.let_up_to(&align::sequences(&live));
            }
            let live = self.live.positions();
            if !live.reach(&target.positions) {
                // A source has begun another life, which counts from 1 again.
                target = self.target().await?;
            }
            let is_there = match bound {
                Some(_) => align::is_as_far(&at, &target.places),
                None => fold.is_complete() && fold.positions().reach(&target.positions),
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
            // One that is damaged may not give it; it is not needed then.
            places: match places {
                Err(_) if self.live.db().is_damaged() => Sequences::new(),
                places => places?,
            },
            since: Instant::now(),
        })
    }

    fn note_progress(&self, fold: &RunnerHandle<P>) {
        let (positions, live, waiting) = (fold.positions(), self.live.positions(), fold.waiting());
        let waits: Vec<String> = waiting
            .iter()
            .map(|(source, why)| format!("; waits in {source}: {why}"))
            .collect();
        self.report(State::Degraded(format!(
            "folding beside: at {positions} of {live}{}",
            waits.concat()
        )));
        self.status.send_if_modified(|status| {
            let before = status.clone();
            (status.positions, status.live, status.waiting) = (positions, live, waiting);
            *status != before
        });
    }

    fn note_state(&self, state: RebuildState) {
        self.status.send_modify(|status| {
            status.state = state;
            status.waiting.clear();
        });
    }

    /// Notes what the two differ in at the same place, and for how long that held the live store.
    async fn compare(
        &self,
        fold: &RunnerHandle<P>,
        bound: Option<&BarrierGuard>,
    ) -> anyhow::Result<()> {
        if self.version != P::VERSION {
            bail!("the live store is of version {}", self.version);
        }
        if self.live.db().is_damaged() {
            bail!("the live store is damaged");
        }
        let (aligned, stores) = self.level(fold, bound).await?;
        let held = aligned.took();
        drop(aligned);
        // Where they were seen last on the way here is behind that.
        let [live, fold] = stores.positions(P::NAME).context("read the positions")?;
        self.status.send_modify(|status| {
            status.positions = of_all_sources::<P>(fold);
            status.live = of_all_sources::<P>(live);
        });
        let compare = move || stores.differences(P::NAME, P::CONTENT, P::TABLES);
        let found = on_thread("compare", compare).await?;
        if found.count > 0 {
            tracing::error!(projection = P::NAME, differences = found.count, first = ?found.rows.first(), "the live store differs from a fold of the events");
        }
        self.status.send_modify(|status| {
            status.differences = Some(found);
            status.held_us = Some(micros(held));
        });
        Ok(())
    }

    /// Holds both at the same place, and begins to see them as they are there.
    ///
    /// At the same sequences they are at the same positions, unless one is on its way through a
    /// stream that was filled again, or has applied what is no event of its source.
    async fn level(
        &self,
        fold: &RunnerHandle<P>,
        bound: Option<&BarrierGuard>,
    ) -> anyhow::Result<(Aligned, Stores)> {
        let began = Instant::now();
        let mut apart = None;
        loop {
            match self.try_level(fold, bound).await {
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
                    error = format!("{error:#}"),
                    "not at one place yet"
                ),
            }
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }

    async fn try_level(
        &self,
        fold: &RunnerHandle<P>,
        bound: Option<&BarrierGuard>,
    ) -> anyhow::Result<(Aligned, Stores)> {
        let aligned = align::align(&self.live, fold, bound).await?;
        let stores = align::stores(&self.live, fold).await?;
        Ok((aligned, stores))
    }

    /// Refuses a fold that could not apply what the live store has applied, unless that one is
    /// broken anyway.
    async fn ensure_no_worse(&self, fold: &RunnerHandle<P>) -> anyhow::Result<()> {
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
    async fn hold_behind(&self, fold: &RunnerHandle<P>) -> BarrierGuard {
        loop {
            let held = self.live.barrier().close().await;
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
    async fn is_overtaken_by(&self, fold: &RunnerHandle<P>) -> bool {
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

    /// The consumers of the second runner are of no use any more.
    async fn remove_consumers(&self, then: RebuildPurpose) {
        let name = Config::beside::<P>(then).consumer;
        for source in P::SOURCES {
            if let Ok(Some(stream)) = stream::find(self.live.bus(), source).await {
                // One that is not there needs no removing.
                let _ = stream.delete_consumer(&name).await;
            }
        }
    }

    pub(crate) fn report(&self, state: State) {
        self.live.health().set(&format!("{} store", P::NAME), state);
    }
}

/// Those that were found, and 0 of the others.
fn of_all_sources<P: Projection>(found: Vec<At>) -> Positions {
    let none = P::SOURCES.iter().map(|source| ((*source).to_owned(), 0));
    let found = found.into_iter().map(|(source, _, at)| (source, at));
    Positions(none.chain(found).collect())
}

/// Where the live store was when that was looked at.
struct Target {
    positions: Positions,
    places: Sequences,
    since: Instant,
}

/// Errors when a fold that was to be compared has stood still for too long, with what it waits for.
fn ensure_moving(waiting: &BTreeMap<String, String>, still: Duration) -> anyhow::Result<()> {
    let waits: Vec<String> = waiting
        .iter()
        .map(|(source, why)| format!("in {source}: {why}"))
        .collect();
    ensure!(
        waits.is_empty() || still < PATIENCE,
        "it gave up: the fold has waited for {} s {}",
        still.as_secs(),
        waits.join("; ")
    );
    ensure!(
        still < STANDSTILL,
        "it gave up: the fold has not moved for {} s",
        still.as_secs()
    );
    Ok(())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Which store a rebuild for this purpose folds.
fn beside(then: RebuildPurpose) -> Beside {
    match then {
        RebuildPurpose::Rebuild => Beside::Successor,
        RebuildPurpose::Verify => Beside::Scratch,
    }
}
