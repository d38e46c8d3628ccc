//! `headwater rebuild`: builds a projection's read store again, next to the live one, which it then
//! replaces.

use std::fmt::{self, Display, Formatter};

use clap::builder::FalseyValueParser;
use client::{Common, Nats, complain};
use headwater::operator::{Endpoint, RebuildState, RebuildStatus};
use serde::Serialize;
use terminal::{Exit, Screen, output};

use crate::target::Target;
use crate::watch;

/// Rebuild a projection from the events of its sources
///
/// A new read store is built next to the live one, and then replaces it. If the service keeps other
/// data in the same database, rows that differ are changed in place instead. No read fails.
///
/// Exit codes: 0 done; 1 the rebuild failed or makes no progress, the old rows still serve; 2 usage
/// error; 3 done, and the old rows were wrong; 4 the broker or the service cannot be reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The projection, or its service if that has only one: `purchases`, `orders`,
    /// `orders-catalogue`
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Start the rebuild and do not wait for it
    #[arg(long, env = "HEADWATER_REBUILD_NO_WAIT", value_parser = FalseyValueParser::new())]
    pub no_wait: bool,

    /// Stop the running rebuild, verification or replay; the old rows still serve
    #[arg(long, env = "HEADWATER_REBUILD_STOP", value_parser = FalseyValueParser::new(), conflicts_with = "no_wait")]
    pub stop: bool,
}

/// The state of a rebuild.
#[derive(Debug, Serialize)]
pub struct Report {
    service: String,
    /// `None` if the service has only one projection and it was not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    projection: Option<String>,
    #[serde(flatten)]
    status: RebuildStatus,
}

/// Rebuilds and prints the result.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    let target = Target::named(&nats, args.name).await?;
    if args.stop {
        return stop(common, &nats, target).await;
    }
    run(common, &nats, target, args.no_wait).await
}

async fn stop(common: &Common, nats: &Nats, target: Target) -> anyhow::Result<Exit> {
    let mut status = target.ask(nats, Endpoint::Fold).await?;
    if status.state.is_running() {
        target.ask(nats, Endpoint::FoldStop).await?;
        status = watch::follow(nats, &target, status, &Screen::new()).await?;
    }
    let report = Report::new(target, status);
    common.print(&report)?;
    Ok(Exit::Done)
}

/// Requests the rebuild, and waits for it unless `no_wait`.
pub(crate) async fn run(
    common: &Common,
    nats: &Nats,
    target: Target,
    no_wait: bool,
) -> anyhow::Result<Exit> {
    let status = target.ask(nats, Endpoint::Rebuild).await?;
    let report = if no_wait {
        Report::new(target, status)
    } else {
        let screen = Screen::new();
        if screen.is_hidden() {
            complain(&format!("the rebuild of {target} has begun"));
        }
        follow(nats, target, status, &screen).await?
    };
    common.print(&report)?;
    Ok(report.exit())
}

/// Waits for a rebuild that has begun, with its progress on the screen.
pub async fn follow(
    nats: &Nats,
    target: Target,
    begun: RebuildStatus,
    screen: &Screen,
) -> anyhow::Result<Report> {
    let status = watch::follow(nats, &target, begun, screen).await?;
    Ok(Report::new(target, status))
}

impl Report {
    fn new(target: Target, status: RebuildStatus) -> Self {
        Self {
            service: target.service,
            projection: target.projection,
            status,
        }
    }

    pub fn exit(&self) -> Exit {
        match (self.status.state, self.differences()) {
            (RebuildState::Failed, _) => Exit::Failed,
            (RebuildState::Done, 1..) => Exit::Different,
            _ => Exit::Done,
        }
    }

    fn differences(&self) -> u64 {
        let differences = self.status.differences.as_ref();
        differences.map_or(0, |differences| differences.count)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (service, status) = (&self.service, &self.status);
        let name = self.projection.as_ref().unwrap_or(service);
        match status.state {
            RebuildState::Idle => write!(f, "{name} is not being rebuilt")?,
            RebuildState::Done => write!(f, "{name} is rebuilt, at {}", status.positions)?,
            RebuildState::Failed => write!(f, "{name} FAILED to rebuild, its old rows serve")?,
            _ => write!(
                f,
                "{name} rebuilds; `nats request headwater.{service}.fold ''` shows its progress{}",
                watch::waits(status)
            )?,
        }
        if let Some(held_us) = status.held_us {
            let held_ms = held_us / 1000;
            write!(
                f,
                "; the projection applied nothing for {held_ms} ms, reads continued"
            )?;
        }
        if self.differences() > 0 {
            let count = self.differences();
            write!(f, "; {count} ROWS DIFFERED from the events")?;
        }
        match &status.message {
            Some(message) => write!(f, ": {}", output::printable(message)),
            None => Ok(()),
        }
    }
}
