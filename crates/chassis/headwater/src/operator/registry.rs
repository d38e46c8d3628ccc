//! The registry of a service's projections, for operators.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use headwater_nats::bus::Bus;
use headwater_nats::control::{
    DiscardAnswer, Pause, ProjectionStatus, RebuildPurpose, RebuildStatus, RetryAnswer,
    SourceStatus,
};
use headwater_projection as projection;
use headwater_projection::dead_letter::retry::Which;
use headwater_projection::dead_letter::{self, Refusal};
use headwater_projection::{Anomalies, PauseControl, Progress, Projection, Runner, Sources};
use headwater_rebuild::{self as rebuild, Task};
use headwater_store::{Database, Snapshot};
use headwater_telemetry::Clock;
use sea_orm::DbErr;

use crate::operator::applied::AppliedTimes;
use crate::operator::reply::{Error, refuse};

type Answered<A> = BoxFuture<'static, Result<A, Refusal>>;
type Retry = dyn Fn(Which) -> Answered<RetryAnswer> + Send + Sync;
type Discard = dyn Fn(u64, String) -> Answered<DiscardAnswer> + Send + Sync;

/// The projections of a service, and what operators may do with them.
#[derive(Debug, Clone, Default)]
pub struct ProjectionRegistry {
    projections: Vec<ProjectionHandle>,
}

/// A type-erased handle to one projection.
#[derive(Clone)]
pub(super) struct ProjectionHandle {
    pub(super) name: &'static str,
    version: u32,
    progress: Progress,
    times: AppliedTimes,
    sources: Sources,
    pub(super) bus: Bus,
    pub(super) pause_control: Option<PauseControl>,
    rebuild: Option<rebuild::Handle>,
    is_effect: bool,
    pub(super) retry: Arc<Retry>,
    pub(super) discard: Arc<Discard>,
}

impl fmt::Debug for ProjectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProjectionHandle").field(&self.name).finish()
    }
}

impl ProjectionHandle {
    fn pause(&self) -> Option<Pause> {
        self.pause_control.as_ref().and_then(PauseControl::now)
    }
}

impl ProjectionRegistry {
    /// Whether there are no projections.
    pub(crate) fn is_empty(&self) -> bool {
        self.projections.is_empty()
    }

    /// Adds the projection of `runner`, with its dead letters.
    #[must_use]
    pub fn with<P: Projection>(mut self, runner: &Runner<P>) -> Self {
        let (one, other) = (runner.live(), runner.live());
        self.projections.push(ProjectionHandle {
            name: P::NAME,
            version: P::VERSION,
            progress: runner.progress(),
            times: AppliedTimes::default(),
            sources: runner.sources(),
            bus: one.bus().clone(),
            pause_control: runner.pause_control(),
            rebuild: None,
            is_effect: false,
            retry: Arc::new(move |which| {
                let live = one.clone();
                async move { dead_letter::retry(&live, which).await }.boxed()
            }),
            discard: Arc::new(move |id, why| {
                let live = other.clone();
                async move { dead_letter::discard(&live, id, why).await }.boxed()
            }),
        });
        self
    }

    /// As [`with`](Self::with); the projection can also be rebuilt and verified.
    #[must_use]
    pub(crate) fn with_rebuild<P: Projection>(
        self,
        runner: &Runner<P>,
        rebuild: rebuild::Handle,
    ) -> Self {
        let mut registry = self.with(runner);
        if let Some(handle) = registry.projections.last_mut() {
            handle.rebuild = Some(rebuild);
        }
        registry
    }

    /// As [`with`](Self::with), for the intents of an effect, which are never rebuilt.
    #[must_use]
    pub(crate) fn with_effect<P: Projection>(self, runner: &Runner<P>) -> Self {
        let mut registry = self.with(runner);
        if let Some(handle) = registry.projections.last_mut() {
            handle.is_effect = true;
        }
        registry
    }

    /// Each projection's name, its progress, its sources, and the status of its rebuild.
    pub(crate) fn progresses(
        &self,
    ) -> impl Iterator<Item = (&'static str, &Progress, &Sources, Option<RebuildStatus>)> {
        let projections = self.projections.iter();
        projections.map(|handle| {
            let rebuild = handle.rebuild.as_ref().map(rebuild::Handle::status);
            (handle.name, &handle.progress, &handle.sources, rebuild)
        })
    }

    /// The projections, in the order in which they were added.
    pub(super) fn all(&self) -> &[ProjectionHandle] {
        &self.projections
    }

    /// Notes when the projections apply events, as long as it is polled.
    pub(super) async fn note_times(&self, clock: &Clock) {
        let noting = self.projections.iter();
        join_all(noting.map(|handle| handle.times.note(&handle.progress, clock))).await;
    }

    /// The status of each projection, with when it applied `events`.
    pub(super) async fn projections(
        &self,
        db: &Database,
        events: &BTreeMap<String, u64>,
    ) -> Result<Vec<ProjectionStatus>, DbErr> {
        let mut statuses = Vec::new();
        for handle in &self.projections {
            let mut status = self.projection(db, handle).await?;
            for (source, of_source) in &mut status.sources {
                let position = events.get(source);
                of_source.applied_at = position.and_then(|at| handle.times.of(source, *at));
            }
            statuses.push(status);
        }
        Ok(statuses)
    }

    pub(super) async fn projection(
        &self,
        db: &Database,
        handle: &ProjectionHandle,
    ) -> Result<ProjectionStatus, DbErr> {
        let name = handle.name;
        let (sources, positions) = (handle.sources.clone(), handle.progress.now());
        let names: Vec<String> = positions.0.keys().cloned().collect();
        let read = move |snapshot: &Snapshot| {
            let status = |source| source_status(snapshot, name, source, &sources);
            names.into_iter().map(status).collect()
        };
        let sources: BTreeMap<String, SourceStatus> = db.read(read).await?;
        let epochs = db.read(move |snapshot| projection::epochs(snapshot, name));
        Ok(ProjectionStatus {
            name: name.to_owned(),
            version: handle.version,
            positions,
            epochs: epochs.await?,
            is_complete: handle.progress.is_complete(),
            dead_letters: sources.values().map(|source| source.dead_letters).sum(),
            sources,
            paused: handle.pause(),
            can_rebuild: handle.rebuild.is_some(),
            is_effect: handle.is_effect,
        })
    }

    /// The projection `name`; without a name, the only one that is not of an effect, or the only
    /// one.
    pub(super) fn find(
        &self,
        db: &Database,
        name: Option<&str>,
    ) -> Result<&ProjectionHandle, Error> {
        let mut tables = self.all().iter().filter(|handle| !handle.is_effect);
        let handle = match (name, self.all()) {
            (Some(name), all) => all.iter().find(|handle| handle.name == name),
            (None, [one]) => Some(one),
            (None, _) => tables.next().filter(|_| tables.next().is_none()),
        };
        handle.ok_or_else(|| {
            let names: Vec<_> = self.all().iter().map(|handle| handle.name).collect();
            let has = match names.as_slice() {
                [] => "no projections".to_owned(),
                names => format!("the projections {}; name one of them", names.join(", ")),
            };
            refuse(404, format!("{} has {has}", db.owner()))
        })
    }
}

impl ProjectionHandle {
    /// Starts a rebuild, a verification or a replay.
    pub(super) fn begin(&self, task: Task) -> Result<RebuildStatus, Error> {
        let (name, rebuild) = (self.name, self.rebuild()?);
        // A replay does not touch the live store.
        let is_replay = matches!(task, Task::Replay(_));
        if self.pause().is_some() && !is_replay {
            let advice = format!("resume it first: `headwater projection resume {name}`");
            return Err(refuse(409, format!("{name} is paused; {advice}")));
        }
        rebuild.begin(task).map_err(|_| under_way())
    }

    /// Fails while the projection is being rebuilt or verified: the two stores would stop at
    /// different positions. A replay does not compare with the live store.
    pub(super) fn expect_no_rebuild(&self) -> Result<(), Error> {
        let status = self.rebuild.as_ref().map(rebuild::Handle::status);
        let is_in_the_way = |status: RebuildStatus| {
            status.state.is_running() && status.then != RebuildPurpose::Replay
        };
        if status.is_some_and(is_in_the_way) {
            Err(under_way())
        } else {
            Ok(())
        }
    }

    pub(super) fn rebuild(&self) -> Result<&rebuild::Handle, Error> {
        let name = self.name;
        if self.is_effect {
            return Err(refuse(
                400,
                format!(
                    "{name} is an effect: it has no tables to build again, and what it did outside \
                     would be done again. `headwater dead-letter retry` repeats work that failed"
                ),
            ));
        }
        let why = || {
            refuse(
                400,
                format!("{name} runs without a service that could rebuild it"),
            )
        };
        self.rebuild.as_ref().ok_or_else(why)
    }
}

fn source_status(
    snapshot: &Snapshot,
    projection: &str,
    source: String,
    sources: &Sources,
) -> Result<(String, SourceStatus), DbErr> {
    let anomalies = Anomalies::load(snapshot, projection, &source)?;
    let fault = sources.fault(&source);
    let status = SourceStatus {
        dead_letters: dead_letter::count(snapshot, projection, &source)?,
        by_hand: anomalies.by_hand,
        foreign_epoch: anomalies.foreign_epoch,
        altered: anomalies.altered,
        missing: anomalies.missing,
        faults: fault
            .into_iter()
            .chain(anomalies.faults().iter().cloned())
            .collect(),
        applied_at: None,
    };
    Ok((source, status))
}

fn under_way() -> Error {
    let status = "a rebuild, verification or replay is running; `fold` shows its progress, \
                  `fold.stop` ends it";
    refuse(409, status.to_owned())
}
