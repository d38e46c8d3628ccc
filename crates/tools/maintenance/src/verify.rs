//! `headwater verify`: proves that outboxes, streams and read stores agree.
//!
//! The outboxes are the truth. A stream must have each of their events once and in order, and no
//! other event of theirs. A projection must have caught up with its sources, and have the rows that
//! a rebuild from their outboxes gives.

use std::collections::BTreeSet;

use client::{Common, Nats};
use headwater::health::State;
use headwater::operator::StatusAnswer;
use headwater::{Positions, causes};
use survey::Topology;
use terminal::{Exit, Screen};

pub use args::Args;
pub use merge::{Doubled, Late, OrderingDiff, Ranges};
pub use report::Report;

mod args;
mod merge;
mod outbox;
pub mod projection;
mod report;
pub mod source;
mod stored;

/// Verifies and prints the result.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let report = run(common, args).await?;
    common.print(&report)?;
    Ok(report.exit())
}

/// Compares streams and projections with the outboxes. Services that cannot be reached, or
/// verified, are in the report with what was found in the others.
///
/// Returns [`Unreachable`](client::Unreachable) if the broker is away.
pub async fn run(common: &Common, args: Args) -> anyhow::Result<Report> {
    on(common.connect().await?, args, Screen::new()).await
}

/// [`run`] on a connection, with its progress on the screen.
pub async fn on(nats: Nats, args: Args, screen: Screen) -> anyhow::Result<Report> {
    let verify = Verify { args, nats, screen };
    verify.all().await
}

struct Verify {
    args: Args,
    nats: Nats,
    screen: Screen,
}

impl Verify {
    async fn all(&self) -> anyhow::Result<Report> {
        let only: BTreeSet<String> = self.args.sources.iter().cloned().collect();
        let topology = Topology::look(&self.nats, &only, self.args.wait).await?;
        let mut report = Report::default();
        let away = topology.unreachable.iter().map(ToString::to_string);
        report.unreachable.extend(away);
        report.failed.extend(topology.failed.iter().cloned());
        self.sources(&topology, &mut report).await?;
        self.projections(&topology, &mut report).await?;
        Ok(report)
    }

    async fn sources(&self, topology: &Topology, report: &mut Report) -> anyhow::Result<()> {
        for source in &topology.sources {
            // Sources without a status are among the unreachable.
            if let Some(status) = topology.services.get(source) {
                if let Some(State::Failed(why)) = status.parts.get("relay") {
                    report.failed.push(format!("{source}: relay: {why}"));
                }
                // Not the name of a projection.
                let bar = self
                    .screen
                    .bar(&format!("the stream of {source}"), status.head);
                let checked = source::check(&self.nats, status, self.args.wait, &bar).await;
                let checked = settle(checked, source, report)?;
                report.sources.extend(checked);
            }
        }
        Ok(())
    }

    async fn projections(&self, topology: &Topology, report: &mut Report) -> anyhow::Result<()> {
        let heads = heads(topology);
        let statuses = topology.services.values();
        let epochs = statuses.map(|status| (status.service.clone(), status.epoch.clone()));
        let epochs = epochs.collect();
        for service in topology.services.values() {
            for projection in &service.projections {
                let mut sources = projection.positions.0.keys();
                if !sources.any(|source| topology.sources.contains(source)) {
                    continue;
                }
                let check = projection::Check {
                    nats: &self.nats,
                    service: &service.service,
                    projection: &projection.name,
                    heads: &heads,
                    epochs: &epochs,
                };
                let checked = check.progress(self.args.wait).await;
                let Some(mut checked) = settle(checked, &projection.name, report)? else {
                    continue;
                };
                if projection.is_effect {
                    report.projections.push(checked);
                    continue;
                }
                let away = |source: &&String| !topology.services.contains_key(*source);
                let away = checked.positions.0.keys().find(away);
                let obstacle = match away {
                    Some(away) => Some(format!("{away}, whose outbox is needed, does not answer")),
                    None if !projection.can_rebuild => {
                        Some("its service cannot rebuild it: upgrade the service".to_owned())
                    }
                    None => None,
                };
                let is_whole = self.args.sources.is_empty() && report.is_well() && checked.agrees();
                let compared = check.compare(obstacle, !is_whole, &self.screen).await;
                checked.comparison = settle(compared, &projection.name, report)?;
                report.projections.push(checked);
            }
        }
        Ok(())
    }
}

/// The heads of the sources that are verified and answer.
fn heads(topology: &Topology) -> Positions {
    let verified = topology.sources.iter();
    let statuses = verified.filter_map(|source| topology.services.get(source));
    let head = |status: &StatusAnswer| (status.service.clone(), status.head);
    Positions(statuses.map(head).collect())
}

/// Notes in the report why something could not be checked. A lost broker ends the verification.
fn settle<T>(
    checked: anyhow::Result<T>,
    what: &str,
    report: &mut Report,
) -> anyhow::Result<Option<T>> {
    let error = match checked {
        Ok(checked) => return Ok(Some(checked)),
        Err(error) => error,
    };
    match client::unreachable(&error) {
        Some(away) if away.is_broker() => return Err(error),
        Some(away) => report.unreachable.push(away.to_string()),
        None => report
            .failed
            .push(format!("{what}: {}", causes(error.as_ref()))),
    }
    Ok(None)
}
