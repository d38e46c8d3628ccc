//! `headwater projection`: looks at projections, holds them, lets them go on, rebuilds them.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};
use headwater::Clock;
use headwater::operator::{Endpoint, PauseRequest, ProjectionStatus, ResumeRequest};
use serde::Serialize;
use terminal::Exit;
use terminal::output::printable;

use crate::fold::Target;
use crate::nats::{Nats, Unreachable};
use crate::survey::{self, Survey};
use crate::{Common, complain, rebuild, shop, status};

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

/// Which projection.
#[derive(Clone, Debug, clap::Args)]
pub struct Which {
    /// Its name, from `list`
    #[arg(value_name = "PROJECTION")]
    pub projection: String,

    /// The service whose it is, where several have one of that name
    #[arg(long, value_name = "NAME", env = "HEADWATER_SERVICE")]
    pub service: Option<String>,
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
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    match args.action {
        Action::List => list(common, &nats).await,
        Action::Pause(args) => pause(common, &nats, args).await,
        Action::Resume(which) => resume(common, &nats, &which).await,
        Action::Rebuild(args) => {
            let target = Target {
                service: find(&nats, &args.which).await?,
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
    let survey = Survey::take(nats).await?;
    for missing in &survey.missing {
        complain(&printable(missing));
    }
    common.print(&Listed {
        projections: survey.projections,
    })?;
    Ok(Exit::Done)
}

async fn pause(common: &Common, nats: &Nats, args: Pause) -> anyhow::Result<Exit> {
    let service = find(nats, &args.which).await?;
    let request = PauseRequest {
        projection: Some(args.which.projection),
        reason: args.reason,
    };
    let status = nats
        .ask(&service, Endpoint::ProjectionsPause, &request)
        .await?;
    common.print(&Changed { service, status })?;
    Ok(Exit::Done)
}

async fn resume(common: &Common, nats: &Nats, which: &Which) -> anyhow::Result<Exit> {
    let service = find(nats, which).await?;
    let request = ResumeRequest {
        projection: Some(which.projection.clone()),
    };
    let status = nats
        .ask(&service, Endpoint::ProjectionsResume, &request)
        .await?;
    common.print(&Changed { service, status })?;
    Ok(Exit::Done)
}

/// The service that has the projection `name`, if exactly one that answers has.
pub(crate) async fn service_of(nats: &Nats, name: &str) -> anyhow::Result<Option<String>> {
    let shop = shop::look(nats, &BTreeSet::new(), Duration::ZERO).await?;
    let statuses = shop.services.into_values();
    let mut having = statuses.filter(|status| {
        let mut projections = status.projections.iter();
        projections.any(|projection| projection.name == name)
    });
    Ok(match (having.next(), having.next()) {
        (Some(status), None) => Some(status.service),
        _ => None,
    })
}

/// The service that has the projection. Errors with [`Unreachable`] where it may be one of those
/// that do not answer.
async fn find(nats: &Nats, which: &Which) -> anyhow::Result<String> {
    if let Some(service) = &which.service {
        return Ok(service.clone());
    }
    let name = &which.projection;
    let shop = shop::look(nats, &BTreeSet::new(), Duration::ZERO).await?;
    let all = shop.services.values().flat_map(|status| {
        let projections = status.projections.iter();
        projections.map(|projection| (&projection.name, &status.service))
    });
    let having: Vec<&String> = all
        .clone()
        .filter(|(projection, _)| *projection == name)
        .map(|(_, service)| service)
        .collect();
    match having.as_slice() {
        [service] => Ok((*service).clone()),
        [] => {
            let is_it = |away: &Unreachable| matches!(away, Unreachable::Projection { projection, .. } if projection == name);
            if let Some(away) = shop.unreachable.into_iter().find(is_it) {
                return Err(away.into());
            }
            let names: BTreeSet<&str> = all.map(|(projection, _)| &**projection).collect();
            let names: Vec<&str> = names.into_iter().collect();
            bail!(
                "there is no projection {name}; there are: {}",
                names.join(", ")
            )
        }
        several => {
            let names: Vec<&str> = several.iter().map(|service| &***service).collect();
            bail!(
                "several services have a projection {name}; say which with --service: {}",
                names.join(", ")
            )
        }
    }
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
