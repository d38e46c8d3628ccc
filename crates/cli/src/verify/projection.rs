//! One projection: how far it is, and, for a read store, its rows against a fresh fold.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use headwater::Positions;
use headwater::operator::{
    Differences, Endpoint, FoldState, FoldStatus, ProjectionStatus, StatusAnswer,
};
use serde::Serialize;
use tokio::time::Instant;

use crate::fold;
use crate::nats::Nats;
use crate::progress::Screen;

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
    /// Events that wait for a person; no difference, but not in its tables either.
    pub dead_letters: u64,
    /// What of its sources contradicts it, and what to do, as sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
    /// Rows that a fresh fold gives otherwise, and where both stood; none where the tables are
    /// part of a source's own database and cannot be folded beside it.
    pub fold: Option<Fold>,
}

/// A read store against a fresh fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fold {
    /// Where both stood when they were compared.
    pub positions: Positions,
    pub differences: Differences,
    /// For how long the store stood still meanwhile, in microseconds; reads went on.
    pub held_us: Option<u64>,
}

impl Report {
    /// Whether it is where its sources are, and its rows are what a fold gives.
    pub fn agrees(&self) -> bool {
        let rows = self.fold.as_ref().map_or(0, |fold| fold.differences.count);
        let is_there = self.behind.is_empty() && self.ahead.is_empty();
        is_there && self.faults.is_empty() && rows == 0
    }
}

/// Waits for up to `wait` until the projection is where `heads` are, and has a read store folded
/// anew and compared.
pub(super) async fn check(
    nats: &Nats,
    service: &StatusAnswer,
    projection: &ProjectionStatus,
    heads: &Positions,
    wait: Duration,
    screen: &Screen,
) -> anyhow::Result<Report> {
    let (name, projection) = (&service.service, &projection.name);
    let now = reach(nats, name, projection, heads, wait).await?;
    let fold = if now.can_rebuild {
        let compared = compare(nats, name, screen).await;
        Some(compared.with_context(|| format!("compare {name} with a fresh fold"))?)
    } else {
        None
    };
    // Sources that are not verified, or do not answer, have no head here.
    let read = heads
        .0
        .iter()
        .filter(|(source, _)| now.positions.0.contains_key(*source));
    let behind = read.filter(|(source, head)| now.positions.get(source) < **head);
    Ok(Report {
        service: name.clone(),
        projection: now.name.clone(),
        version: now.version,
        behind: behind
            .map(|(source, head)| (source.clone(), *head))
            .collect(),
        ahead: ahead(nats, &now.positions, heads).await?,
        dead_letters: now.dead_letters,
        faults: (now.sources.values())
            .flat_map(|source| source.faults.iter().cloned())
            .collect(),
        fold,
        positions: now.positions,
    })
}

/// Waits until the projection is at `heads`, or had the time to; how it is then.
async fn reach(
    nats: &Nats,
    service: &str,
    projection: &str,
    heads: &Positions,
    wait: Duration,
) -> anyhow::Result<ProjectionStatus> {
    let deadline = Instant::now() + wait;
    loop {
        let status: StatusAnswer = nats.ask(service, Endpoint::Status, &()).await?;
        let now = status
            .projections
            .into_iter()
            .find(|now| now.name == projection)
            .with_context(|| format!("{service} no longer has the projection {projection}"))?;
        let read = now.positions.0.iter();
        let reached = read
            .clone()
            .all(|(source, position)| *position >= heads.get(source));
        if reached || Instant::now() >= deadline {
            return Ok(now);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
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
            let status: StatusAnswer = nats.ask(source, Endpoint::Status, &()).await?;
            if positions.get(source) > status.head {
                ahead.insert(source.clone(), status.head);
            }
        }
    }
    Ok(ahead)
}

async fn compare(nats: &Nats, service: &str, screen: &Screen) -> anyhow::Result<Fold> {
    let begun: FoldStatus = nats.ask(service, Endpoint::Verify, &()).await?;
    let ended = fold::follow(nats, service, begun, screen).await?;
    let why = ended.message.unwrap_or_default();
    ensure!(ended.state == FoldState::Done, "it failed: {why}");
    let differences = ended
        .differences
        .with_context(|| format!("it was not compared: {why}"))?;
    Ok(Fold {
        positions: ended.positions,
        differences,
        held_us: ended.held_us,
    })
}
