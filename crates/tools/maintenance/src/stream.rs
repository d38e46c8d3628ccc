//! `headwater stream`: creates a source's stream again from its outbox.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use clap::builder::FalseyValueParser;
use client::{Common, Nats, complain};
use serde::Serialize;
use survey::source;
use terminal::{Exit, Screen, confirm, printable};

use crate::verify;
pub use before::Before;
use before::Lost;
use refill::Rebuilt;

mod before;
mod refill;

/// How long relays and projections may take to catch up before the comparison.
const VERIFY_WAIT: Duration = Duration::from_secs(30);

/// Restore a source's stream from its outbox
///
/// For a stream that differs from the outbox: foreign events were published on the source's
/// subjects, events are missing, or a setting is wrong that cannot be changed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    Restore(Restore),
}

/// Delete a source's stream, refill it from the outbox, and rebuild the projections that read it
///
/// The new stream has the settings of the old one. Events that only the stream has are lost: events
/// published by hand, and events of former epochs. Their number is shown before you confirm. Then
/// each projection of the source is rebuilt, and the source is verified.
///
/// If the database was restored from an old copy, do not use this: restore the newest copy.
///
/// Exit codes: 0 done, and all agree; 1 failure; 2 usage error, or --yes is missing, nothing was
/// done; 3 done, and something differs; 4 the broker or a service cannot be reached.
#[derive(Clone, Debug, clap::Args)]
struct Restore {
    /// The source, such as `orders`
    #[arg(value_name = "SOURCE", value_parser = source)]
    source: String,

    /// Do not ask for confirmation
    #[arg(long, env = "HEADWATER_YES", value_parser = FalseyValueParser::new())]
    yes: bool,
}

/// Restores and prints the result.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let Action::Restore(args) = args.action;
    let nats = common.connect().await?;
    let before = Before::look(&nats, &args.source).await?;
    for line in before.plan() {
        complain(&printable(&line));
    }
    confirm(&format!("restore {}", before.name), args.yes)?;
    let report = restore(&nats, before, &Screen::new()).await?;
    common.print(&report)?;
    Ok(report.exit())
}

/// Restores the stream of `source` without confirmation.
pub(crate) async fn restore_one(nats: &Nats, source: &str) -> anyhow::Result<Report> {
    let before = Before::look(nats, source).await?;
    restore(nats, before, &Screen::new()).await
}

/// Restores a stream without confirmation, with its progress on the screen.
pub async fn restore(nats: &Nats, before: Before, screen: &Screen) -> anyhow::Result<Report> {
    before.make_again(nats).await?;
    let published = before.wait_until_filled(nats, screen).await?;
    let rebuilt = before.rebuild(nats, screen).await?;
    let source = before.status.service;
    Ok(Report {
        rebuilt,
        stream: before.name,
        lost: before.lost,
        published,
        verify: verify_one(nats, &source, screen).await?,
        source,
    })
}

/// Verifies `source` and the projections that read it.
pub(crate) async fn verify_one(
    nats: &Nats,
    source: &str,
    screen: &Screen,
) -> anyhow::Result<verify::Report> {
    let args = verify::Args {
        sources: vec![source.to_owned()],
        wait: VERIFY_WAIT,
    };
    verify::on(nats.clone(), args, screen.clone()).await
}

/// The result of a restore.
#[derive(Debug, Serialize)]
pub struct Report {
    stream: String,
    source: String,
    /// `None` if the stream could not be read.
    lost: Option<Lost>,
    /// The newest position in the stream.
    published: u64,
    rebuilt: Vec<Rebuilt>,
    verify: verify::Report,
}

impl Report {
    /// The same without the content of events and rows, which may be personal.
    #[must_use]
    pub fn without_content(mut self) -> Self {
        self.verify = self.verify.without_content();
        self
    }

    pub fn exit(&self) -> Exit {
        if self.rebuilt.iter().any(|one| one.failure.is_some()) {
            return Exit::Failed;
        }
        self.verify.exit()
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        writeln!(
            f,
            "{} is refilled from the outbox of {}, up to {}",
            self.stream, self.source, self.published
        )?;
        for Rebuilt {
            service,
            projection,
            failure,
        } in &self.rebuilt
        {
            match failure {
                None => writeln!(f, "{projection} of {service} is rebuilt")?,
                Some(why) => writeln!(
                    f,
                    "{projection} of {service} is NOT REBUILT: {}",
                    printable(why)
                )?,
            }
        }
        write!(f, "{}", self.verify)
    }
}
