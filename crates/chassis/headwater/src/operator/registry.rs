//! What operators may do with the projections of a service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use headwater_nats::bus::Bus;
use headwater_nats::control::{
    DiscardAnswer, Pause, ProjectionStatus, RebuildPurpose, RebuildState, RebuildStatus,
    RetryAnswer, SourceStatus,
};
use headwater_projection as projection;
use headwater_projection::dead_letter::retry::Which;
use headwater_projection::dead_letter::{self, Refusal};
use headwater_projection::{Anomalies, PauseControl, Progress, Projection, Runner, Sources};
use headwater_rebuild as rebuild;
use headwater_store::{Database, Snapshot};
use sea_orm::DbErr;

use crate::operator::reply::{Error, refuse};

type Answered<A> = BoxFuture<'static, Result<A, Refusal>>;
type Retry = dyn Fn(Which) -> Answered<RetryAnswer> + Send + Sync;
type Discard = dyn Fn(u64, String) -> Answered<DiscardAnswer> + Send + Sync;

/// What operators may do with the projections of a service. Without any: nothing.
#[derive(Debug, Clone, Default)]
pub struct ProjectionRegistry {
    projections: Vec<ProjectionHandle>,
}

/// What can be done with one projection, its type forgotten.
#[derive(Clone)]
pub(super) struct ProjectionHandle {
    pub(super) name: &'static str,
    version: u32,
    progress: Progress,
    sources: Sources,
    pub(super) bus: Bus,
    pub(super) pause_control: Option<PauseControl>,
    fold: Option<rebuild::Handle>,
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
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.projections.is_empty()
    }

    /// Adds the dead letters of the projection that `runner` runs.
    #[must_use]
    pub fn with<P: Projection>(mut self, runner: &Runner<P>) -> Self {
        let (one, other) = (runner.live(), runner.live());
        self.projections.push(ProjectionHandle {
            name: P::NAME,
            version: P::VERSION,
            progress: runner.progress(),
            sources: runner.sources(),
            bus: one.bus().clone(),
            pause_control: runner.pause_control(),
            fold: None,
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

    /// [`with`](Self::with), and rebuilding and verifying it.
    #[must_use]
    pub(crate) fn with_fold<P: Projection>(
        self,
        runner: &Runner<P>,
        fold: rebuild::Handle,
    ) -> Self {
        let mut registry = self.with(runner);
        if let Some(tool) = registry.projections.last_mut() {
            tool.fold = Some(fold);
        }
        registry
    }

    /// The projections, how far they are, as they move, what their sources are like, and how far
    /// folding them beside is.
    pub(crate) fn progresses(
        &self,
    ) -> impl Iterator<Item = (&'static str, &Progress, &Sources, Option<RebuildStatus>)> {
        let projections = self.projections.iter();
        projections.map(|tool| {
            let fold = tool.fold.as_ref().map(rebuild::Handle::status);
            (tool.name, &tool.progress, &tool.sources, fold)
        })
    }

    /// The projections with dead letters, in the order in which they were added.
    pub(super) fn all(&self) -> &[ProjectionHandle] {
        &self.projections
    }

    pub(super) async fn projections(&self, db: &Database) -> Result<Vec<ProjectionStatus>, DbErr> {
        let mut statuses = Vec::new();
        for tool in &self.projections {
            statuses.push(self.projection(db, tool).await?);
        }
        Ok(statuses)
    }

    pub(super) async fn projection(
        &self,
        db: &Database,
        tool: &ProjectionHandle,
    ) -> Result<ProjectionStatus, DbErr> {
        let name = tool.name;
        let (sources, positions) = (tool.sources.clone(), tool.progress.now());
        let names: Vec<String> = positions.0.keys().cloned().collect();
        let read = move |snapshot: &Snapshot| {
            let status = |source| source_status(snapshot, name, source, &sources);
            names.into_iter().map(status).collect()
        };
        let sources: BTreeMap<String, SourceStatus> = db.read(read).await?;
        let epochs = db.read(move |snapshot| projection::epochs(snapshot, name));
        Ok(ProjectionStatus {
            name: name.to_owned(),
            version: tool.version,
            positions,
            epochs: epochs.await?,
            is_complete: tool.progress.is_complete(),
            dead_letters: sources.values().map(|source| source.dead_letters).sum(),
            sources,
            paused: tool.pause(),
            can_rebuild: tool.fold.is_some(),
        })
    }

    /// The projection `name`, or the only one.
    pub(super) fn find(
        &self,
        db: &Database,
        name: Option<&str>,
    ) -> Result<&ProjectionHandle, Error> {
        let tool = match (name, self.all()) {
            (Some(name), all) => all.iter().find(|tool| tool.name == name),
            (None, [one]) => Some(one),
            (None, _) => None,
        };
        tool.ok_or_else(|| {
            let names: Vec<_> = self.all().iter().map(|tool| tool.name).collect();
            let has = match names.as_slice() {
                [] => "no projections".to_owned(),
                names => format!("the projections {}; name one of them", names.join(", ")),
            };
            refuse(404, format!("{} has {has}", db.owner()))
        })
    }
}

impl ProjectionHandle {
    /// Begins a fold beside.
    pub(super) fn begin(
        &self,
        then: RebuildPurpose,
        is_partial: bool,
    ) -> Result<RebuildStatus, Error> {
        let (name, fold) = (self.name, self.fold()?);
        if self.pause().is_some() {
            let advice = format!("let it go on first: `headwater projection resume {name}`");
            return Err(refuse(409, format!("{name} is paused; {advice}")));
        }
        fold.begin(then, is_partial).map_err(|_| under_way())
    }

    /// Errors while it is folded beside: both would have to stand still in two places.
    pub(super) fn expect_no_fold(&self) -> Result<(), Error> {
        let state = self.fold.as_ref().map(|fold| fold.status().state);
        if state.is_some_and(RebuildState::is_running) {
            Err(under_way())
        } else {
            Ok(())
        }
    }

    pub(super) fn fold(&self) -> Result<&rebuild::Handle, Error> {
        let name = self.name;
        let why = || {
            refuse(
                400,
                format!("{name} runs without a service that could rebuild it"),
            )
        };
        self.fold.as_ref().ok_or_else(why)
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
    };
    Ok((source, status))
}

fn under_way() -> Error {
    let status = "a rebuild or a verification is under way; ask `fold` how far it is, end it with \
                  `fold.stop`";
    refuse(409, status.to_owned())
}
