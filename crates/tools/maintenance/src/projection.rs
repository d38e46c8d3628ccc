//! `headwater projection`: lists, pauses, resumes, rebuilds and replays projections.

use std::fmt::{self, Display, Formatter};

use clap::Subcommand;
use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};
use client::{Common, Nats, complain};
use headwater::Clock;
use headwater::operator::{Endpoint, PauseRequest, ProjectionStatus, ResumeRequest};
use serde::Serialize;
use survey::{Plan, Survey, status};
use terminal::Exit;
use terminal::output::printable;

use crate::target::{Target, Which};
use crate::{rebuild, replay};

/// List, pause, resume, rebuild or replay projections
///
/// Exit codes: 0 done, 1 other failure, 2 usage error, 3 a rebuild found wrong rows, 4 the broker
/// or a service cannot be reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The action.
    #[command(subcommand)]
    pub action: Action,
}

/// The actions.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List projections with their progress in each source and the age of the oldest waiting event
    List,
    /// Pause a projection until it is resumed, even across restarts of its service
    ///
    /// Meanwhile new events wait in the stream. Reads are answered from the events applied so far;
    /// reads with a newer `?after` get 503. A paused projection cannot be rebuilt or
    /// verified.
    Pause(Pause),
    /// Resume a paused projection
    Resume(Which),
    /// Rebuild a projection: the same as `headwater rebuild`
    Rebuild(Rebuild),
    /// Show which rows of a projection one event changes, on a temporary copy
    ///
    /// The copy is built from the events that were in the streams when the event was stored; then
    /// the event is applied alone. The live rows stay. The rows may hold personal data.
    Replay(replay::Args),
}

/// `pause`.
#[derive(Clone, Debug, clap::Args)]
pub struct Pause {
    /// The projection.
    #[command(flatten)]
    pub which: Which,

    /// The reason; shown with the projection's state
    #[arg(long, value_name = "TEXT", env = "HEADWATER_PAUSE_REASON", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,
}

/// `rebuild`.
#[derive(Clone, Debug, clap::Args)]
pub struct Rebuild {
    /// The projection.
    #[command(flatten)]
    pub which: Which,

    /// Start the rebuild and do not wait for it
    #[arg(long, env = "HEADWATER_REBUILD_NO_WAIT", value_parser = FalseyValueParser::new())]
    pub no_wait: bool,
}

/// Runs the action and prints the result.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    match args.action {
        Action::List => list(common, &nats).await,
        Action::Pause(Pause { which, reason }) => {
            let service = which.service(&nats).await?;
            common.print(&pause(&nats, service, which.projection, reason).await?)?;
            Ok(Exit::Done)
        }
        Action::Resume(which) => {
            let service = which.service(&nats).await?;
            common.print(&resume(&nats, service, which.projection).await?)?;
            Ok(Exit::Done)
        }
        Action::Rebuild(args) => {
            let target = Target {
                service: args.which.service(&nats).await?,
                projection: Some(args.which.projection),
            };
            rebuild::run(common, &nats, target, args.no_wait).await
        }
        Action::Replay(args) => replay::command(common, &nats, args).await,
    }
}

/// All projections, in JSON an array.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct Listed {
    projections: Vec<survey::Projection>,
}

impl Display for Listed {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        if self.projections.is_empty() {
            return f.write_str("there are none");
        }
        f.write_str(
            status::projections(&self.projections)
                .to_string()
                .trim_end(),
        )
    }
}

async fn list(common: &Common, nats: &Nats) -> anyhow::Result<Exit> {
    let survey = Survey::take(nats, &Plan::default()).await?;
    for missing in &survey.missing {
        complain(&printable(missing));
    }
    common.print(&Listed {
        projections: survey.projections,
    })?;
    Ok(Exit::Done)
}

/// Pauses a projection until it is resumed.
pub async fn pause(
    nats: &Nats,
    service: String,
    projection: String,
    reason: String,
) -> anyhow::Result<Changed> {
    let request = PauseRequest {
        projection: Some(projection),
        reason,
    };
    let asked = nats.ask(&service, Endpoint::ProjectionsPause, &request);
    let status = asked.await?;
    Ok(Changed { service, status })
}

/// Resumes a projection.
pub async fn resume(nats: &Nats, service: String, projection: String) -> anyhow::Result<Changed> {
    let request = ResumeRequest {
        projection: Some(projection),
    };
    let asked = nats.ask(&service, Endpoint::ProjectionsResume, &request);
    let status = asked.await?;
    Ok(Changed { service, status })
}

/// A projection after a change.
#[derive(Debug, Serialize)]
pub struct Changed {
    service: String,
    #[serde(flatten)]
    status: ProjectionStatus,
}

impl Display for Changed {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (status, service) = (&self.status, &self.service);
        let (name, positions) = (&status.name, &status.positions);
        match &status.paused {
            Some(pause) => write!(
                f,
                "{name} of {service} is paused at {positions} since {}: {}",
                Clock::text(pause.since),
                printable(&pause.reason)
            ),
            None => write!(f, "{name} of {service} resumes at {positions}"),
        }
    }
}
