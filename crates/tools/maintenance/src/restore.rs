//! `headwater restore`: puts a copy in the place of a source's database.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use client::{Common, complain};
use headwater::Clock;
use headwater::backup::Restored;
use serde::Serialize;
use survey::source;
use terminal::output::duration;
use terminal::{Exit, confirm, printable};

use crate::backup::Data;
use crate::{stream, verify};
use before::Before;

mod before;
mod lost;
mod unit;

/// Put a copy in the place of a source's database, start the service, and verify
///
/// The copy is checked first: its digest, if that is beside it, whether it is whole, and of this
/// service. It is compared with the stream, with the projections, and with the database that is
/// there: what is lost is said, and asked about.
///
/// Under systemd the service and its sockets are stopped and started; elsewhere you are told when
/// to. The copy gets the owner and the mode of the file that it replaces, which stays beside it, as
/// `orders.db.replaced-…`. After a restore that was killed, run it again.
///
/// If others have events that the copy does not have, it begins a new life, which its positions
/// count in: another epoch, the stream made again from the outbox (`headwater stream restore`),
/// the projections rebuilt.
///
/// Exit codes: 0 done, and all agree; 3 done, and something differs; 4 the broker or a service
/// cannot be reached; 2 the command line cannot be followed, or --yes is missing, nothing was done;
/// 1 something failed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The source, such as `orders`
    #[arg(value_name = "SERVICE", value_parser = source)]
    service: String,

    /// The copy, such as `orders-20261130T041200Z.db`
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where the databases are.
    #[command(flatten)]
    data: Data,

    /// How long the service may take to start, or you to start it
    #[arg(long, value_name = "SECONDS", env = "HEADWATER_RESTORE_WAIT", default_value = "120", value_parser = duration)]
    wait: Duration,

    /// Do not ask
    #[arg(long, env = "HEADWATER_YES", value_parser = clap::builder::FalseyValueParser::new())]
    yes: bool,
}

/// Restores and prints what it came to.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    let before = Before::look(&nats, &args.service, &args.file, &args.data).await?;
    for line in before.plan() {
        complain(&printable(&line));
    }
    let what = format!("restore {}", before.database.display());
    confirm(&what, args.yes)?;
    let place = before.stop()?;
    let lost = before.lost_now(&nats).await?;
    let copy = args.file.clone();
    let put = move || place.put(&copy, lost.is_seen, &Clock::system());
    let placed = tokio::task::spawn_blocking(put).await?;
    // What was there is there, and serves on.
    let started = before.start();
    let placed = placed?;
    started.with_context(|| said(&placed))?;
    let came = before.wait(&nats, &placed, args.wait).await;
    came.with_context(|| said(&placed))?;
    let report = Report {
        service: args.service.clone(),
        database: before.database,
        position: placed.facts.head,
        epoch: placed.facts.epoch,
        is_new_life: lost.is_seen,
        lost: lost.events(),
        aside: placed.aside,
        came: if lost.is_seen {
            Came::Restored(stream::restore_one(common, &nats, &args.service).await?)
        } else {
            Came::Verified(stream::verify_one(common, &args.service).await?)
        },
    };
    common.print(&report)?;
    Ok(report.exit())
}

/// For an error behind which the copy is in its place.
fn said(placed: &Restored) -> String {
    let aside = placed.aside.as_ref();
    let aside = aside.map(|aside| format!(", what was there is {}", aside.display()));
    format!("the copy is in place{}", aside.unwrap_or_default())
}

#[derive(Debug, Serialize)]
struct Report {
    service: String,
    database: PathBuf,
    position: u64,
    epoch: String,
    is_new_life: bool,
    /// Events that the copy does not have.
    lost: u64,
    /// Where what was there before is.
    aside: Option<PathBuf>,
    #[serde(flatten)]
    came: Came,
}

/// What was done once it ran.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Came {
    Verified(verify::Report),
    Restored(stream::Report),
}

impl Report {
    fn exit(&self) -> Exit {
        match &self.came {
            Came::Verified(report) => report.exit(),
            Came::Restored(report) => report.exit(),
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let (service, life) = (
            &self.service,
            if self.is_new_life {
                ", in a new life"
            } else {
                ""
            },
        );
        writeln!(
            f,
            "{service} serves from the copy, up to {}{life}",
            self.position
        )?;
        if self.lost > 0 {
            writeln!(f, "lost: {} events", self.lost)?;
        }
        if let Some(aside) = &self.aside {
            let aside = printable(&aside.display().to_string());
            writeln!(
                f,
                "what was there: {aside}; remove it when you do not need it"
            )?;
        }
        match &self.came {
            Came::Verified(report) => report.fmt(f),
            Came::Restored(report) => report.fmt(f),
        }
    }
}
