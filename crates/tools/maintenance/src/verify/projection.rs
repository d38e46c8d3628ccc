//! One projection: how far it is, and its rows against a fold of the outboxes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use client::Nats;
use headwater::Positions;
use headwater::health::State;
use headwater::operator::{Differences, ProjectionStatus, RebuildState};
use serde::Serialize;
use terminal::Screen;
use tokio::time::Instant;

use crate::fold;
use crate::target::Target;

/// How long to wait before a projection is looked at again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How a projection differs from its sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub service: String,
    pub projection: String,
    pub version: u32,
    /// How far it is.
    pub positions: Positions,
    /// Sources that it is not as far as, and their heads.
    pub behind: BTreeMap<String, u64>,
    /// Sources that it is further than, and their heads.
    pub ahead: BTreeMap<String, u64>,
    /// Sources whose epoch is not the one that it has applied last, and that one.
    pub other_epochs: BTreeMap<String, String>,
    /// Events that wait for a person; no difference, but not in its tables either.
    pub dead_letters: u64,
    /// What of its sources contradicts it, and what to do, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// What it waits for, by the source that it cannot go on in; no difference by itself.
    pub waits: BTreeMap<String, String>,
    /// Rows that a fold of the outboxes gives otherwise, and where both stood; none where they
    /// could not be compared.
    pub fold: Option<Fold>,
}

/// The rows of a projection against a fold of the outboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fold {
    /// Where both stood when they were compared.
    pub positions: Positions,
    pub differences: Differences,
    /// For how long the projection stood still meanwhile, in microseconds; reads went on.
    pub held_us: Option<u64>,
}

impl Report {
    /// Whether it is where its sources are, and its rows are what a fold gives.
    pub fn agrees(&self) -> bool {
        let rows = self.fold.as_ref().map_or(0, |fold| fold.differences.count);
        let is_there = self.behind.is_empty() && self.ahead.is_empty();
        is_there && self.other_epochs.is_empty() && self.faults.is_empty() && rows == 0
    }
}

/// A projection that is to be compared.
pub(crate) struct Check<'a> {
    pub(crate) nats: &'a Nats,
    pub(crate) service: &'a str,
    pub(crate) projection: &'a str,
    pub(crate) heads: &'a Positions,
    /// The epochs of the same sources.
    pub(crate) epochs: &'a BTreeMap<String, String>,
}

impl Check<'_> {
    /// Waits for up to `wait` until the projection is where the heads are; how far it is then.
    pub(crate) async fn progress(&self, wait: Duration) -> anyhow::Result<Report> {
        let Self { nats, heads, .. } = *self;
        let (now, waits) = self.reach(wait).await?;
        // Sources that are not verified, or do not answer, have no head here.
        let read = heads
            .0
            .iter()
            .filter(|(source, _)| now.positions.0.contains_key(*source));
        let behind = read.filter(|(source, head)| now.positions.get(source) < **head);
        Ok(Report {
            service: self.service.to_owned(),
            projection: now.name.clone(),
            version: now.version,
            behind: behind
                .map(|(source, head)| (source.clone(), *head))
                .collect(),
            ahead: ahead(nats, &now.positions, heads).await?,
            other_epochs: other_epochs(&now, self.epochs),
            dead_letters: now.dead_letters,
            faults: (now.sources.values())
                .flat_map(|source| source.faults.iter().cloned())
                .collect(),
            waits,
            fold: None,
            positions: now.positions,
        })
    }

    /// Waits until the projection is where its sources are, or had the time to; how it is then, and
    /// what it waits for.
    async fn reach(
        &self,
        wait: Duration,
    ) -> anyhow::Result<(ProjectionStatus, BTreeMap<String, String>)> {
        let Self {
            nats,
            service,
            projection,
            ..
        } = *self;
        let deadline = Instant::now() + wait;
        loop {
            let status = nats.status(service).await?;
            let now = status
                .projections
                .iter()
                .find(|now| now.name == projection)
                .with_context(|| format!("{service} no longer has the projection {projection}"))?;
            let read = now.positions.0.iter();
            let reached = read
                .clone()
                .all(|(source, position)| *position >= self.heads.get(source))
                && other_epochs(now, self.epochs).is_empty();
            if reached || Instant::now() >= deadline {
                let waits = now.positions.0.keys().filter_map(|source| {
                    match status.parts.get(&format!("{projection} from {source}"))? {
                        State::Ok(_) => None,
                        State::Degraded(why) | State::Failed(why) => {
                            let why = why.strip_prefix("waiting: ")?;
                            Some((source.clone(), why.to_owned()))
                        }
                    }
                });
                return Ok((now.clone(), waits.collect()));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Has the projection folded once more beside, from the outboxes, and compared. `obstacle`: why
    /// that cannot be. `is_partial`: whether it is no success even without differences.
    pub(crate) async fn compare(
        &self,
        obstacle: Option<String>,
        is_partial: bool,
        screen: &Screen,
    ) -> anyhow::Result<Fold> {
        let target = Target {
            service: self.service.to_owned(),
            projection: Some(self.projection.to_owned()),
        };
        let compared = match obstacle {
            Some(obstacle) => Err(anyhow!(obstacle)),
            None => compare(self.nats, &target, is_partial, screen).await,
        };
        compared.with_context(|| format!("compare {target} with a fold of the outboxes"))
    }
}

/// What the projection has applied last that is of another epoch than the source's.
fn other_epochs(
    now: &ProjectionStatus,
    epochs: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let others = now.epochs.iter().filter(|(source, epoch)| {
        let own = epochs.get(*source);
        own.is_some_and(|own| own != *epoch)
    });
    others
        .map(|(source, epoch)| (source.clone(), epoch.clone()))
        .collect()
}

/// Where `positions` are beyond their sources, which are asked again: they may have gone on.
async fn ahead(
    nats: &Nats,
    positions: &Positions,
    heads: &Positions,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut ahead = BTreeMap::new();
    for (source, head) in &heads.0 {
        if positions.get(source) > *head {
            let status = nats.status(source).await?;
            if positions.get(source) > status.head {
                ahead.insert(source.clone(), status.head);
            }
        }
    }
    Ok(ahead)
}

async fn compare(
    nats: &Nats,
    target: &Target,
    is_partial: bool,
    screen: &Screen,
) -> anyhow::Result<Fold> {
    let begun = target.verify(nats, is_partial).await?;
    let ended = fold::follow(nats, target, begun, screen).await?;
    let why = ended.message.unwrap_or_default();
    ensure!(ended.state == RebuildState::Done, "it failed: {why}");
    let differences = ended
        .differences
        .with_context(|| format!("it was not compared: {why}"))?;
    Ok(Fold {
        positions: ended.positions,
        differences,
        held_us: ended.held_us,
    })
}
