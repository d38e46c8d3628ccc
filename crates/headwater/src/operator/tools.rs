//! What operators may do with the projections of a service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sea_orm::DbErr;

use super::{
    DiscardAnswer, Error, FoldState, FoldStatus, ProjectionStatus, RetryAnswer, RetryRequest,
    SourceStatus, Then, refuse,
};
use crate::database::{Database, Snapshot, Tx};
use crate::projection::dead_letter::{self, Refusal};
use crate::projection::{Anomalies, Brake, Pause, Progress, Projection, Runner, Sources};
use crate::rebuild;

type Retry = dyn Fn(&Tx, &RetryRequest) -> Result<RetryAnswer, Refusal> + Send + Sync;
type Discard = dyn Fn(&Tx, u64, &str) -> Result<DiscardAnswer, Refusal> + Send + Sync;

/// What operators may do with the projections of a service. Without any: nothing.
#[derive(Debug, Clone, Default)]
pub struct Tools {
    projections: Vec<Tool>,
    fold: Option<rebuild::Handle>,
}

/// What can be done with one projection, its type forgotten.
#[derive(Clone)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    version: u32,
    progress: Progress,
    sources: Sources,
    pub(super) brake: Option<Brake>,
    pub(super) retry: Arc<Retry>,
    pub(super) discard: Arc<Discard>,
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tool").field(&self.name).finish()
    }
}

impl Tool {
    fn pause(&self) -> Option<Pause> {
        self.brake.as_ref().and_then(Brake::now)
    }
}

impl Tools {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.projections.is_empty()
    }

    /// Adds the dead letters of the projection that `runner` runs.
    #[must_use]
    pub fn with<P: Projection>(mut self, runner: &Runner<P>) -> Self {
        let (one, other) = (runner.projection(), runner.projection());
        self.projections.push(Tool {
            name: P::NAME,
            version: P::VERSION,
            progress: runner.progress(),
            sources: runner.sources(),
            brake: runner.brake(),
            retry: Arc::new(move |tx, which| dead_letter::retry(&*one, tx, which)),
            discard: Arc::new(move |tx, id, why| dead_letter::discard(&*other, tx, id, why)),
        });
        self
    }

    /// Adds folding the read store anew.
    #[must_use]
    pub(crate) fn with_fold(mut self, fold: rebuild::Handle) -> Self {
        self.fold = Some(fold);
        self
    }

    /// The projections and how far they are, as they move.
    pub(crate) fn progresses(&self) -> impl Iterator<Item = (&'static str, &Progress)> {
        let projections = self.projections.iter();
        projections.map(|tool| (tool.name, &tool.progress))
    }

    /// How far folding the read store anew is, where the service has one.
    pub(crate) fn fold_of_copy(&self) -> Option<FoldStatus> {
        self.fold.as_ref().map(rebuild::Handle::status)
    }

    /// The projections with dead letters, in the order in which they were added.
    pub(super) fn all(&self) -> &[Tool] {
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
        tool: &Tool,
    ) -> Result<ProjectionStatus, DbErr> {
        let name = tool.name;
        let (sources, positions) = (tool.sources.clone(), tool.progress.now());
        let names: Vec<String> = positions.0.keys().cloned().collect();
        let read = move |snapshot: &Snapshot| {
            let status = |source| source_status(snapshot, name, source, &sources);
            names.into_iter().map(status).collect()
        };
        let sources: BTreeMap<String, SourceStatus> = db.read(read).await?;
        Ok(ProjectionStatus {
            name: name.to_owned(),
            version: tool.version,
            positions,
            is_complete: tool.progress.is_complete(),
            dead_letters: sources.values().map(|source| source.dead_letters).sum(),
            sources,
            paused: tool.pause(),
            can_rebuild: self.fold.is_some(),
        })
    }

    pub(super) fn begin(&self, db: &Database, then: Then) -> Result<FoldStatus, Error> {
        let fold = self.fold(db)?;
        if let Some(tool) = self.projections.iter().find(|tool| tool.pause().is_some()) {
            let name = tool.name;
            let advice = format!("let it go on first: `headwater projection resume {name}`");
            return Err(refuse(409, format!("{name} is paused; {advice}")));
        }
        fold.begin(then).map_err(|_| under_way())
    }

    /// Errors while a store is folded anew: both would have to stand still in two places.
    pub(super) fn expect_no_fold(&self) -> Result<(), Error> {
        let state = self.fold.as_ref().map(|fold| fold.status().state);
        match state {
            Some(FoldState::Folding | FoldState::Comparing) => Err(under_way()),
            _ => Ok(()),
        }
    }

    pub(super) fn fold_status(&self, db: &Database) -> Result<FoldStatus, Error> {
        Ok(self.fold(db)?.status())
    }

    fn fold(&self, db: &Database) -> Result<&rebuild::Handle, Error> {
        self.fold.as_ref().ok_or_else(|| {
            refuse(
                400,
                format!(
                    "{} has no read store: its database is more than a copy of others' events",
                    db.owner()
                ),
            )
        })
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
    let status = "a rebuild or a verification is under way; ask `fold` how far it is";
    refuse(409, status.to_owned())
}
