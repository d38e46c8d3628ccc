//! `headwater rebuild`: has a projection folded once more beside, which then takes over.

use std::fmt::{self, Display, Formatter};

use clap::builder::FalseyValueParser;
use client::{Common, Nats, complain};
use headwater::operator::{Endpoint, RebuildState, RebuildStatus};
use serde::Serialize;
use terminal::{Exit, Screen, output};

use crate::fold;
use crate::target::Target;

/// Rebuild a projection from the events of its sources
///
/// A read store is folded beside the one that serves, and takes its place. Where a service keeps
/// more in the same database, the rows that differ are changed in place. No read fails.
///
/// Exit codes: 0 done, 3 done, and the old rows were not what they should have been, 4 the broker
/// or the service cannot be reached, 2 the command line cannot be followed, 1 it failed or does
/// not get on, and the old rows still serve.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The projection, or its service where that has one: `purchases`, `orders`, `orders-catalogue`
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Begin it and do not wait until it is done
    #[arg(long, env = "HEADWATER_REBUILD_NO_WAIT", value_parser = FalseyValueParser::new())]
    pub no_wait: bool,

    /// End the rebuild or verification that is under way; the old rows still serve
    #[arg(long, env = "HEADWATER_REBUILD_STOP", value_parser = FalseyValueParser::new(), conflicts_with = "no_wait")]
    pub stop: bool,
}

/// What a rebuild came to, or how it began.
#[derive(Debug, Serialize)]
struct Report {
    service: String,
    /// None where the service has one only and it was not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    projection: Option<String>,
    #[serde(flatten)]
    status: RebuildStatus,
}

/// Rebuilds and prints what it came to.
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
        status = fold::follow(nats, &target, status, &Screen::new()).await?;
    }
    let report = Report::new(target, status);
    common.print(&report)?;
    Ok(Exit::Done)
}

/// Has the projection rebuilt, and waits for it unless that is not wanted.
pub(crate) async fn run(
    common: &Common,
    nats: &Nats,
    target: Target,
    no_wait: bool,
) -> anyhow::Result<Exit> {
    let mut status = target.ask(nats, Endpoint::Rebuild).await?;
    if !no_wait {
        let screen = Screen::new();
        if screen.is_hidden() {
            complain(&format!("the rebuild of {target} has begun"));
        }
        status = fold::follow(nats, &target, status, &screen).await?;
    }
    let report = Report::new(target, status);
    common.print(&report)?;
    Ok(report.exit())
}

impl Report {
    fn new(target: Target, status: RebuildStatus) -> Self {
        Self {
            service: target.service,
            projection: target.projection,
            status,
        }
    }

    fn exit(&self) -> Exit {
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
                "{name} rebuilds; `nats request headwater.{service}.fold ''` says how far it is{}",
                fold::waits(status)
            )?,
        }
        if let Some(held_us) = status.held_us {
            let held_ms = held_us / 1000;
            write!(
                f,
                "; the projection stood still for {held_ms} ms, reads went on"
            )?;
        }
        if self.differences() > 0 {
            let count = self.differences();
            write!(f, "; {count} ROWS WERE NOT as the events have them")?;
        }
        match &status.message {
            Some(message) => write!(f, ": {}", output::printable(message)),
            None => Ok(()),
        }
    }
}
