//! `headwater rebuild`: has a read store folded anew, and swapped in.

use std::fmt::{self, Display, Formatter};

use clap::builder::FalseyValueParser;
use headwater::operator::{Endpoint, FoldState, FoldStatus};
use serde::Serialize;

use crate::nats::Nats;
use crate::output;
use crate::progress::Screen;
use crate::{Common, Exit, complain, fold};

/// Fold a read store anew and swap it in
///
/// The store that serves stays as it is until the new one has caught up with it; no read fails.
///
/// Exit codes: 0 done, 3 done, and the old store's rows were not what they should have been, 4
/// the broker or the service cannot be reached, 2 the command line cannot be followed, 1 it
/// failed, and the old store still serves.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The service whose store it is, such as `purchases`
    #[arg(value_name = "SERVICE")]
    pub service: String,

    /// Begin it and do not wait until it is done
    #[arg(long, env = "HEADWATER_REBUILD_NO_WAIT", value_parser = FalseyValueParser::new())]
    pub no_wait: bool,
}

/// What a rebuild came to, or how it began.
#[derive(Debug, Serialize)]
struct Report {
    service: String,
    #[serde(flatten)]
    status: FoldStatus,
}

/// Rebuilds and prints what it came to.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    run(common, &nats, args.service, args.no_wait).await
}

/// Has the read store of `service` folded anew, and waits for it unless that is not wanted.
pub(crate) async fn run(
    common: &Common,
    nats: &Nats,
    service: String,
    no_wait: bool,
) -> anyhow::Result<Exit> {
    let mut status: FoldStatus = nats.ask(&service, Endpoint::Rebuild, &()).await?;
    if !no_wait {
        let screen = Screen::new();
        if screen.is_hidden() {
            complain(&format!("the rebuild of {service} has begun"));
        }
        status = fold::follow(nats, &service, status, &screen).await?;
    }
    let report = Report { service, status };
    common.print(&report)?;
    Ok(report.exit())
}

impl Report {
    fn exit(&self) -> Exit {
        match (self.status.state, self.differences()) {
            (FoldState::Failed, _) => Exit::Failed,
            (FoldState::Done, 1..) => Exit::Different,
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
        match status.state {
            FoldState::Done => write!(f, "{service} serves a new store, at {}", status.positions)?,
            FoldState::Failed => write!(f, "{service} FAILED to rebuild, its old store serves")?,
            _ => write!(
                f,
                "{service} rebuilds; `nats request headwater.{service}.fold ''` says how far it is"
            )?,
        }
        if let Some(held_us) = status.held_us {
            let held_ms = held_us / 1000;
            write!(
                f,
                "; the old one stood still for {held_ms} ms, reads went on"
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
