//! `headwater projection`: looks at projections, holds them, lets them go on, rebuilds them.

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

use crate::rebuild;
use crate::target::{Target, Which};

/// Look at projections, pause and resume them, rebuild them
///
/// Exit codes: 0 done, 3 a rebuild found rows that were not what they should have been, 4 the
/// broker or a service cannot be reached, 2 the command line cannot be followed, 1 anything else.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done about projections.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// List them, how far they are in each source, and how old the oldest event is that waits
    List,
    /// Hold one where it is, also over restarts of its service, until it is resumed
    ///
    /// What comes meanwhile waits in the stream; reads are answered from what is there, and those
    /// with `?after` of something newer with 503. What is paused is neither rebuilt nor verified.
    Pause(Pause),
    /// Let one go on
    Resume(Which),
    /// Rebuild one: as `headwater rebuild`
    Rebuild(Rebuild),
}

/// `pause`.
#[derive(Clone, Debug, clap::Args)]
pub struct Pause {
    /// Which.
    #[command(flatten)]
    pub which: Which,

    /// Why; shown to everybody who looks
    #[arg(long, value_name = "TEXT", env = "HEADWATER_PAUSE_REASON", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,
}

/// `rebuild`.
#[derive(Clone, Debug, clap::Args)]
pub struct Rebuild {
    /// Which.
    #[command(flatten)]
    pub which: Which,

    /// Begin it and do not wait until it is done
    #[arg(long, env = "HEADWATER_REBUILD_NO_WAIT", value_parser = FalseyValueParser::new())]
    pub no_wait: bool,
}

/// Does it and prints what came of it.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    match args.action {
        Action::List => list(common, &nats).await,
        Action::Pause(Pause { which, reason }) => {
            let projection = Some(which.projection.clone());
            let request = PauseRequest { projection, reason };
            change(common, &nats, &which, Endpoint::ProjectionsPause, &request).await
        }
        Action::Resume(which) => {
            let projection = Some(which.projection.clone());
            let request = ResumeRequest { projection };
            change(common, &nats, &which, Endpoint::ProjectionsResume, &request).await
        }
        Action::Rebuild(args) => {
            let target = Target {
                service: args.which.service(&nats).await?,
                projection: Some(args.which.projection),
            };
            rebuild::run(common, &nats, target, args.no_wait).await
        }
    }
}

/// All projections; in JSON a list.
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

/// Has the projection changed, and prints how it is then.
async fn change(
    common: &Common,
    nats: &Nats,
    which: &Which,
    endpoint: Endpoint,
    request: &impl Serialize,
) -> anyhow::Result<Exit> {
    let service = which.service(nats).await?;
    let status = nats.ask(&service, endpoint, request).await?;
    common.print(&Changed { service, status })?;
    Ok(Exit::Done)
}

/// A projection after a change.
#[derive(Debug, Serialize)]
struct Changed {
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
                "{name} of {service} stands still at {positions} since {}: {}",
                Clock::text(pause.since),
                printable(&pause.reason)
            ),
            None => write!(f, "{name} of {service} goes on from {positions}"),
        }
    }
}
