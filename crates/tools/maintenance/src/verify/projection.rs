//! One projection: its progress, and its rows compared with a rebuild from the outboxes.

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

use crate::target::Target;
use crate::watch;

/// The pause between two checks of a projection.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How a projection differs from its sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub service: String,
    pub projection: String,
    pub version: u32,
    /// Its progress.
    pub positions: Positions,
    /// Sources that it has not caught up with, and their heads.
    pub behind: BTreeMap<String, u64>,
    /// Sources that it is ahead of, and their heads.
    pub ahead: BTreeMap<String, u64>,
    /// Sources whose epoch differs from the last one applied, and the applied epoch.
    pub other_epochs: BTreeMap<String, String>,
    /// Dead letters. They are not a difference, but are missing from its tables.
    pub dead_letters: u64,
    /// Contradictions with its sources and what to do, one sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// What it waits for, by source. Waiting is not a difference by itself.
    pub waits: BTreeMap<String, String>,
    /// Rows that a rebuild from the outboxes gives differently; `None` if they could not be
    /// compared.
    #[serde(rename = "fold")]
    pub comparison: Option<Comparison>,
}

/// The rows of a projection compared with a rebuild from the outboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The positions of both when they were compared.
    pub positions: Positions,
    pub differences: Differences,
    /// For how long the projection applied nothing meanwhile, in microseconds; reads continued.
    pub held_us: Option<u64>,
}

impl Report {
    /// Whether it has caught up with its sources and has the rows of a rebuild.
    pub fn agrees(&self) -> bool {
        let rows = self
            .comparison
            .as_ref()
            .map_or(0, |it| it.differences.count);
        let is_there = self.behind.is_empty() && self.ahead.is_empty();
        is_there && self.other_epochs.is_empty() && self.faults.is_empty() && rows == 0
    }
}

/// A projection to compare.
pub(crate) struct Check<'a> {
    pub(crate) nats: &'a Nats,
    pub(crate) service: &'a str,
    pub(crate) projection: &'a str,
    pub(crate) heads: &'a Positions,
    /// The epochs of the same sources.
    pub(crate) epochs: &'a BTreeMap<String, String>,
}

impl Check<'_> {
    /// Waits up to `wait` until the projection has reached the heads; returns its progress.
    pub(crate) async fn progress(&self, wait: Duration) -> anyhow::Result<Report> {
        let Self { nats, heads, .. } = *self;
        let (now, waits) = self.reach(wait).await?;
        // Sources that are not verified or do not answer have no head here.
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
            comparison: None,
            positions: now.positions,
        })
    }

    /// Waits until the projection has caught up with its sources, or `wait` is over. Returns its
    /// status and what it waits for.
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

    /// Has the projection rebuilt from the outboxes, and compared. `obstacle`: why this is
    /// impossible. `is_partial`: whether it does not count as a success even without differences.
    pub(crate) async fn compare(
        &self,
        obstacle: Option<String>,
        is_partial: bool,
        screen: &Screen,
    ) -> anyhow::Result<Comparison> {
        let target = Target {
            service: self.service.to_owned(),
            projection: Some(self.projection.to_owned()),
        };
        let compared = match obstacle {
            Some(obstacle) => Err(anyhow!(obstacle)),
            None => compare(self.nats, &target, is_partial, screen).await,
        };
        compared.with_context(|| format!("compare {target} with a rebuild from the outboxes"))
    }
}

/// The sources of which the projection last applied another epoch than the current one.
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

/// Positions beyond their sources' heads. The sources are asked again, since they may have grown.
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
) -> anyhow::Result<Comparison> {
    let begun = target.verify(nats, is_partial).await?;
    let ended = watch::follow(nats, target, begun, screen).await?;
    let why = ended.message.unwrap_or_default();
    ensure!(ended.state == RebuildState::Done, "it failed: {why}");
    let differences = ended
        .differences
        .with_context(|| format!("it was not compared: {why}"))?;
    Ok(Comparison {
        positions: ended.positions,
        differences,
        held_us: ended.held_us,
    })
}
