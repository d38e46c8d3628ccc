//! The worker: performs what is due, and records the results.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use headwater_event::Positions;
use headwater_projection::{PauseControl, Progress, Runner, RunnerHandle};
use headwater_store::{Database, Snapshot, Tx, WriteError};
use headwater_telemetry::health::State;
use headwater_telemetry::{Clock, causes, crash};
use sea_orm::DbErr;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::begin;
use crate::config::Config;
use crate::effect::{Effect, Outcome};
use crate::intents::Intents;
use crate::ledger::{self, Entry, Waiting};

/// The longest pause between two looks at the ledger, which an operator's retry or resume does not
/// announce.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the ledger is measured.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// The most that a receiver may postpone an attempt beyond the schedule.
const AFTER_MAX: Duration = Duration::from_hours(24);

/// How long attempts that are under way may go on when the service stops.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// Performs the intents of the effect `E`.
#[derive(Debug)]
pub struct Worker<E> {
    doing: Arc<Doing<E>>,
    runner: Runner<Intents<E>>,
    progress: Progress,
    started_at: BTreeMap<String, i64>,
}

/// What the attempts share.
#[derive(Debug)]
struct Doing<E> {
    live: RunnerHandle<Intents<E>>,
    config: Config,
    pause: Option<PauseControl>,
}

impl<E: Effect> Worker<E> {
    /// Prepares the effect that `runner` writes the intents of. Records the sources with
    /// which it starts for the first time.
    ///
    /// # Errors
    /// The database's.
    pub async fn load(runner: Runner<Intents<E>>, config: Config) -> anyhow::Result<Self> {
        let (live, progress) = (runner.live(), runner.progress());
        let db = live.db();
        // Written only if unknown: a service must also start on a full disk.
        let started = |snapshot: &Snapshot| ledger::started_at(snapshot, E::NAME);
        let mut started_at = db.read(started).await?;
        if !E::SOURCES.iter().all(|it| started_at.contains_key(*it)) {
            let start = config.start;
            let start = move |tx: &Tx| ledger::start(tx, E::NAME, E::SOURCES, start);
            db.write(start).await.map_err(WriteError::flat)?;
            started_at = db.read(started).await?;
        }
        for outcome in ["done", "retried", "dead"] {
            metrics::counter!("headwater_effect_attempts_total", "effect" => E::NAME, "outcome" => outcome)
                .increment(0);
        }
        let pause = runner.pause_control();
        let doing = Doing {
            live,
            config,
            pause,
        };
        Ok(Self {
            doing: Arc::new(doing),
            runner,
            progress,
            started_at,
        })
    }

    /// Writes intents and performs them until `stop`. Does not end by itself.
    ///
    /// # Errors
    /// The projection ended.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            doing,
            runner,
            progress,
            started_at,
        } = self;
        let beginning = async {
            let live = &doing.live;
            let (unknown, of) = (&live.projection().unknown, (live.db(), live.bus()));
            let finding = begin::find_all(unknown, of, E::NAME, &started_at);
            stop.run_until_cancelled(finding).await;
            Ok(())
        };
        let performing = doing.perform_all(&progress, &stop);
        tokio::try_join!(runner.run(stop.clone()), performing, beginning)?;
        Ok(())
    }
}

impl<E: Effect> Doing<E> {
    fn db(&self) -> &Database {
        self.live.db()
    }

    fn effect(&self) -> &E {
        &self.live.projection().effect
    }

    /// Performs what is due until `stop`.
    async fn perform_all(
        self: &Arc<Self>,
        progress: &Progress,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut attempts = JoinSet::new();
        let mut under_way = HashSet::new();
        let mut seen = Positions::default();
        let mut was_paused = false;
        let mut sampled: Option<Instant> = None;
        loop {
            let is_paused = self.is_paused();
            if was_paused && !is_paused {
                // The time in which everything failed begins again.
                self.write(|tx| ledger::works_again(tx, E::NAME)).await;
            }
            was_paused = is_paused;
            let next = self.attempt_due(&mut attempts, &mut under_way).await;
            if sampled.is_none_or(|at| at.elapsed() >= SAMPLE_EVERY) {
                self.sample().await;
                sampled = Some(Instant::now());
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = attempts.join_next() => {
                    under_way.remove(&ended.context("record an attempt")?);
                }
                moved = progress.moved(&seen) => seen = moved,
                () = tokio::time::sleep(next) => {}
            }
        }
        let finishing = async { while attempts.join_next().await.is_some() {} };
        // What is not finished is performed again, with the same key.
        let _ = tokio::time::timeout(FINISH_WITHIN, finishing).await;
        Ok(())
    }

    fn is_paused(&self) -> bool {
        let pause = self.pause.as_ref().and_then(PauseControl::now);
        pause.is_some()
    }

    /// Starts to perform what is due, as far as there is room. Returns when to look again.
    async fn attempt_due(
        self: &Arc<Self>,
        attempts: &mut JoinSet<i64>,
        under_way: &mut HashSet<i64>,
    ) -> Duration {
        let limit = self.config.at_once;
        let room = limit.saturating_sub(under_way.len());
        if room == 0 || self.is_paused() {
            return LOOK_EVERY;
        }
        let now = self.db().clock().now_ms();
        let due = move |snapshot: &_| ledger::due(snapshot, E::NAME, now, limit);
        let (due, next) = match self.db().read(due).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(effect = E::NAME, %error, "cannot read the ledger; retrying");
                return LOOK_EVERY;
            }
        };
        let due: Vec<Entry> = due
            .into_iter()
            .filter(|entry| !under_way.contains(&entry.id))
            .take(room)
            .collect();
        for entry in due {
            under_way.insert(entry.id);
            let doing = Arc::clone(self);
            attempts.spawn(async move { doing.attempt(entry).await });
        }
        let next = next.and_then(|next| u64::try_from(next - now).ok());
        next.map_or(LOOK_EVERY, |ms| Duration::from_millis(ms).min(LOOK_EVERY))
    }

    /// Performs `entry` once and records the result. Returns its id.
    async fn attempt(&self, entry: Entry) -> i64 {
        let id = entry.id;
        crash::point("effect.due");
        let outcome = self.outcome(&entry).await;
        crash::point("effect.performed");
        let settled = Settled::of(outcome, &entry, &self.config.schedule);
        let outcome = settled.name();
        metrics::counter!("headwater_effect_attempts_total", "effect" => E::NAME, "outcome" => outcome)
            .increment(1);
        let (reason, is_unwanted) = match &settled {
            Settled::Done => (None, false),
            Settled::Later(_, reason) => (Some(reason.clone()), false),
            Settled::Dead {
                reason,
                is_unwanted,
            } => (Some(reason.clone()), *is_unwanted),
        };
        let entry = Arc::new(entry);
        let settle = move |tx: &Tx| settled.settle::<E>(tx, &entry);
        let failing_since = self.write(settle).await;
        crash::point("effect.settled");
        if let Some(reason) = reason {
            self.note_failure(&reason, is_unwanted, failing_since).await;
        }
        id
    }

    /// The result of an attempt. A panic, and an attempt that takes too long, are retried.
    async fn outcome(&self, entry: &Entry) -> Outcome {
        let within = self.config.timeout;
        // A panic while the future is made counts, too.
        let performing = async { self.effect().perform(&entry.event, &entry.key).await };
        let performing = AssertUnwindSafe(performing).catch_unwind();
        match tokio::time::timeout(within, performing).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Outcome::retry("performing it panicked"),
            Err(_) => Outcome::retry(format!("not done within {within:?}")),
        }
    }

    /// Pauses the effect if its receiver wants no more, or if everything has failed for long.
    async fn note_failure(&self, reason: &str, is_unwanted: bool, failing_since: i64) {
        let failed_for = self.db().clock().now_ms() - failing_since;
        let failed_for = Duration::from_millis(u64::try_from(failed_for).unwrap_or_default());
        let why = if is_unwanted {
            reason.to_owned()
        } else if failed_for >= self.config.switch_off_after {
            let since = Clock::text(failing_since);
            format!("all attempts have failed since {since}, the last one: {reason}")
        } else {
            return;
        };
        let Some(pause) = self.pause.as_ref().filter(|_| !self.is_paused()) else {
            return;
        };
        tracing::error!(
            effect = E::NAME,
            reason = why,
            "the effect is switched off until an operator resumes it"
        );
        if let Err(error) = pause.pause(format!("switched itself off: {why}")).await {
            // The next failure tries again.
            tracing::warn!(effect = E::NAME, error = causes(&error), "cannot pause");
        }
    }

    /// Writes until it is written: performing again what is done would be worse.
    async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Tx) -> Result<T, DbErr> + Send + Sync + 'static,
    ) -> T {
        let work = Arc::new(work);
        loop {
            let work = Arc::clone(&work);
            match self.db().write(move |tx: &Tx| work(tx)).await {
                Ok(written) => return written.value,
                Err(error) => {
                    let error = causes(&error.flat());
                    tracing::warn!(effect = E::NAME, error, "cannot write the ledger; retrying");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Measures the ledger.
    async fn sample(&self) {
        let now = self.db().clock().now_ms();
        let waiting = self
            .db()
            .read(move |snapshot| ledger::waiting(snapshot, E::NAME, now));
        let waiting = match waiting.await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::debug!(effect = E::NAME, %error, "cannot measure the ledger");
                return;
            }
        };
        let age = waiting.since.map_or(0, |since| now - since);
        metrics::gauge!("headwater_effect_waiting", "effect" => E::NAME)
            .set(number(waiting.intents));
        metrics::gauge!("headwater_effect_oldest_seconds", "effect" => E::NAME)
            .set(number(u64::try_from(age).unwrap_or_default()) / 1000.0);
        let component = format!("{} work", E::NAME);
        self.live.health().set(&component, state(&waiting));
    }
}

/// The health of an effect: degraded while work has failed and is to be done again.
fn state(waiting: &Waiting) -> State {
    let Waiting {
        intents,
        failed,
        failure,
        ..
    } = waiting;
    match failure {
        None => State::Ok(format!("{intents} intents wait")),
        Some(failure) => State::Degraded(format!(
            "{intents} intents wait, {failed} of them after a failure; the oldest: {failure}"
        )),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge need not be exact")]
fn number(number: u64) -> f64 {
    number as f64
}

/// What becomes of an intent after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Settled {
    Done,
    Later(Duration, String),
    Dead { reason: String, is_unwanted: bool },
}

impl Settled {
    fn of(outcome: Outcome, entry: &Entry, schedule: &[Duration]) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Retry { reason, after } => match schedule.get(entry.attempts) {
                Some(pause) => {
                    let after = after.unwrap_or_default().min(AFTER_MAX);
                    Self::Later(after.max(*pause), reason)
                }
                None => Self::Dead {
                    reason: format!("{reason} (attempt {}, the last)", entry.attempts + 1),
                    is_unwanted: false,
                },
            },
            Outcome::GiveUp(reason) => Self::Dead {
                reason,
                is_unwanted: false,
            },
            Outcome::SwitchOff(reason) => Self::Dead {
                reason,
                is_unwanted: true,
            },
        }
    }

    /// The label in metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Later(..) => "retried",
            Self::Dead { .. } => "dead",
        }
    }

    /// Records the result for `entry`. Returns since when all attempts have failed, in milliseconds
    /// since 1970.
    fn settle<E: Effect>(&self, tx: &Tx, entry: &Entry) -> Result<i64, DbErr> {
        match self {
            Self::Done => {
                ledger::done(tx, E::NAME, entry.id)?;
                return Ok(tx.now_ms());
            }
            Self::Later(pause, reason) => {
                tracing::warn!(
                    effect = E::NAME,
                    key = entry.key,
                    attempts = entry.attempts + 1,
                    pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    reason,
                    "the effect failed and is tried again"
                );
                ledger::postpone(tx, entry.id, *pause, reason)?;
            }
            Self::Dead { reason, .. } => ledger::give_up(tx, E::NAME, entry, reason)?,
        }
        ledger::fails(tx, E::NAME)
    }
}
