//! The worker: performs what is due, and records the results.

use std::collections::{BTreeMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use headwater_event::{Positions, is_newer, kind_of};
use headwater_nats::control::Pause;
use headwater_projection::{PauseControl, Progress, Runner, RunnerHandle};
use headwater_store::{Database, Snapshot, Tx};
use headwater_telemetry::health::State;
use headwater_telemetry::{Clock, causes, crash};
use sea_orm::DbErr;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::begin;
use crate::config::Config;
use crate::effect::{Effect, Outcome};
use crate::error::Error;
use crate::intents::Intents;
use crate::ledger::{self, Entry, Waiting};
use crate::timers::Timers;

/// The longest pause between two looks at the ledger, which an operator's retry or resume does not
/// announce.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the ledger is measured.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// The most that a receiver may postpone an attempt beyond the schedule.
const AFTER_MAX: Duration = Duration::from_hours(24);

/// How the reason of a pause by the effect itself begins.
const SWITCHED_OFF: &str = "switched itself off: ";

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
    timers: Timers,
}

impl<E: Effect> Worker<E> {
    /// Prepares the effect that `runner` writes the intents of. Records the sources with
    /// which it starts for the first time.
    ///
    /// # Errors
    /// The database's.
    pub async fn load(runner: Runner<Intents<E>>, config: Config) -> Result<Self, Error> {
        let (live, progress) = (runner.live(), runner.progress());
        let db = live.db();
        // Written only if unknown: a service must also start on a full disk.
        let started = |snapshot: &Snapshot| ledger::started_at(snapshot, E::NAME);
        let mut started_at = db.read(started).await?;
        if !E::SOURCES.iter().all(|it| started_at.contains_key(*it)) {
            let start = config.start;
            let start = move |tx: &Tx| ledger::start(tx, E::NAME, E::SOURCES, start);
            db.write(start).await?;
            started_at = db.read(started).await?;
        }
        hold_newer::<E>(db).await?;
        for outcome in ["done", "retried", "dead"] {
            metrics::counter!("headwater_effect_attempts_total", "effect" => E::NAME, "outcome" => outcome)
                .increment(0);
        }
        let pause = runner.pause_control();
        let doing = Doing {
            live,
            config,
            pause,
            timers: Timers::default(),
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
    /// The projection ended, or [panicked](Error::Panicked).
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
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
        let freeing = async {
            let of = (doing.db(), doing.live.bus());
            let freeing = doing.timers.free_all(of, E::NAME, E::SOURCES);
            stop.run_until_cancelled(freeing).await;
            Ok(())
        };
        let performing = doing.perform_all(&progress, &stop);
        let running = async { Ok(runner.run(stop.clone()).await?) };
        tokio::try_join!(running, performing, beginning, freeing)?;
        Ok(())
    }
}

/// Holds the intents for events in a newer version than `E` knows, which a newer program wrote, and
/// no longer those in one that it knows now. Writes only if there is something to change.
async fn hold_newer<E: Effect>(db: &Database) -> Result<(), Error> {
    let mut subjects = db
        .read(|snapshot| ledger::subjects(snapshot, E::NAME))
        .await?;
    let is_held = |subject: &str| is_newer(kind_of(subject), E::EVENTS.iter().copied());
    subjects.retain(|(subject, was_held)| is_held(subject) != *was_held);
    if subjects.is_empty() {
        return Ok(());
    }
    let hold = move |tx: &Tx| {
        let mut subjects = subjects.iter();
        subjects.try_for_each(|(subject, was)| ledger::hold(tx, E::NAME, subject, !was))
    };
    db.write(hold).await?;
    Ok(())
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
    ) -> Result<(), Error> {
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
                    under_way.remove(&ended.map_err(|error| Error::Panicked(error.into()))?);
                }
                moved = progress.moved(&seen) => seen = moved,
                () = self.timers.freed() => {}
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
        let found = match self.db().read(due).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(effect = E::NAME, %error, "cannot read the ledger; retrying");
                return LOOK_EVERY;
            }
        };
        if found.timer.is_some_and(|timer| timer <= now) {
            self.timers.note_due();
        }
        let entries = found.entries.into_iter();
        let due: Vec<Entry> = entries
            .filter(|entry| !under_way.contains(&entry.id))
            .take(room)
            .collect();
        for entry in due {
            under_way.insert(entry.id);
            let doing = Arc::clone(self);
            attempts.spawn(async move { doing.attempt(entry).await });
        }
        let timer = found.timer.filter(|timer| *timer > now);
        let next = found.next.into_iter().chain(timer).min();
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
        let reason = settled.reason().map(str::to_owned);
        let pause = self.pause.clone();
        let settle = move |tx: &Tx| settled.settle::<E>(tx, &entry, pause.as_ref());
        let Record {
            failed,
            switched_off,
        } = self.write(settle).await;
        crash::point("effect.settled");
        if let (Some(pause), Some(control)) = (switched_off, &self.pause) {
            note_off::<E>(&pause.reason);
            control.begin(pause).await;
        } else if let (Some(since), Some(reason)) = (failed, reason) {
            self.note_failure(&reason, since).await;
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

    /// Pauses the effect if everything has failed for long.
    async fn note_failure(&self, reason: &str, failing_since: i64) {
        let failed_for = self.db().clock().now_ms() - failing_since;
        let failed_for = Duration::from_millis(u64::try_from(failed_for).unwrap_or_default());
        if failed_for < self.config.switch_off_after {
            return;
        }
        let Some(pause) = self.pause.as_ref().filter(|_| !self.is_paused()) else {
            return;
        };
        let since = Clock::text(failing_since);
        let why =
            format!("{SWITCHED_OFF}all attempts have failed since {since}, the last one: {reason}");
        note_off::<E>(&why);
        if let Err(error) = pause.pause(why).await {
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
                    let error = causes(&error);
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
        let held = self.timers.why_held();
        let state = state(&waiting, held.as_deref(), self.db().owner());
        self.live.health().set(&component, state);
    }
}

fn note_off<E: Effect>(reason: &str) {
    tracing::error!(
        effect = E::NAME,
        reason,
        "the effect is switched off until an operator resumes it"
    );
}

/// The health of an effect: degraded while work has failed and is to be done again, or is held.
fn state(waiting: &Waiting, timers_held: Option<&str>, service: &str) -> State {
    let Waiting {
        intents,
        failed,
        newer,
        ..
    } = waiting;
    let mut text = format!("{intents} intents wait");
    let failure = waiting.failure.as_ref();
    let failure =
        failure.map(|why| format!(", {failed} of them after a failure; the oldest: {why}"));
    let held = waiting.newer_subject.as_ref();
    let held = held.map(|subject| {
        let kind = kind_of(subject);
        format!("; {newer} are held: {kind} is newer than this service knows: upgrade {service}")
    });
    let timers = timers_held.map(|why| format!("; timers that are due wait: {why}"));
    let faults: Vec<String> = failure.into_iter().chain(held).chain(timers).collect();
    text.extend(faults.iter().map(String::as_str));
    if faults.is_empty() {
        State::Ok(text)
    } else {
        State::Degraded(text)
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
    Dead(Why, String),
}

/// Why an intent is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Its last attempt failed.
    Failed,
    /// The effect gives it up: this is not the receiver's fault.
    GivenUp,
    /// The receiver wants no more.
    Unwanted,
}

/// What was recorded after an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Record {
    /// Since when all attempts have failed, in milliseconds since 1970, if this one did.
    failed: Option<i64>,
    /// The pause that was stored, if the receiver wants no more.
    switched_off: Option<Pause>,
}

impl Settled {
    fn of(outcome: Outcome, entry: &Entry, schedule: &[Duration]) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Retry { reason, after } => {
                let Some(pause) = schedule.get(entry.attempts) else {
                    let last = format!("{reason} (attempt {}, the last)", entry.attempts + 1);
                    return Self::Dead(Why::Failed, last);
                };
                let after = after.unwrap_or_default().min(AFTER_MAX);
                Self::Later(after.max(*pause), reason)
            }
            Outcome::GiveUp(reason) => Self::Dead(Why::GivenUp, reason),
            Outcome::SwitchOff(reason) => Self::Dead(Why::Unwanted, reason),
        }
    }

    fn reason(&self) -> Option<&str> {
        match self {
            Self::Done => None,
            Self::Later(_, reason) | Self::Dead(_, reason) => Some(reason),
        }
    }

    /// The label in metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Later(..) => "retried",
            Self::Dead(..) => "dead",
        }
    }

    /// Records the result for `entry`. If the receiver wants no more, also the pause by `control`,
    /// unless the effect is paused already.
    fn settle<E: Effect>(
        &self,
        tx: &Tx,
        entry: &Entry,
        control: Option<&PauseControl>,
    ) -> Result<Record, DbErr> {
        let mut record = Record::default();
        match self {
            Self::Done => ledger::done(tx, E::NAME, entry.id)?,
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
                record.failed = Some(ledger::fails(tx, E::NAME)?);
            }
            Self::Dead(why, reason) => {
                ledger::give_up(tx, E::NAME, entry, reason)?;
                if *why == Why::Failed {
                    record.failed = Some(ledger::fails(tx, E::NAME)?);
                }
                if !ledger::any_failed(tx, E::NAME)? {
                    // Whether the receiver fails, only the next attempt will show.
                    ledger::works_again(tx, E::NAME)?;
                }
                let control = control.filter(|control| control.now().is_none());
                if let Some(control) = control.filter(|_| *why == Why::Unwanted) {
                    let why = format!("{SWITCHED_OFF}{reason}");
                    record.switched_off = Some(control.store(tx, why)?);
                }
            }
        }
        Ok(record)
    }
}
