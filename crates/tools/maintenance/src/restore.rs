//! `headwater restore`: replaces a source's database with a copy.

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
use terminal::{Exit, Screen, confirm, printable};

use crate::backup::Data;
use crate::{stream, verify};
use before::Before;

mod before;
mod lost;
mod unit;

/// Replace a source's database with a copy, start the service, and verify
///
/// The copy is checked first: its digest if there is a digest file, its integrity, and its service.
/// It is compared with the stream, the projections and the present database. The events that would
/// be lost are reported, and you are asked to confirm.
///
/// With systemd, the service and its sockets are stopped and started. Otherwise you are asked to
/// start the service. The copy gets the owner and mode of the file that it replaces, which is kept
/// next to it as `orders.db.replaced-…`. If a restore is killed, run it again.
///
/// If others have events that the copy does not have, the copy starts a new epoch: the stream is
/// created again from the outbox (`headwater stream restore`), and the projections are rebuilt.
///
/// Exit codes: 0 done, and all agree; 1 failure; 2 usage error, or --yes is missing, nothing was
/// done; 3 done, and something differs; 4 the broker or a service cannot be reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The source, such as `orders`
    #[arg(value_name = "SERVICE", value_parser = source)]
    service: String,

    /// The copy, such as `orders-20261130T041200Z.db`
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The path of the databases.
    #[command(flatten)]
    data: Data,

    /// Time for the service to start, or for you to start it
    #[arg(long, value_name = "SECONDS", env = "HEADWATER_RESTORE_WAIT", default_value = "120", value_parser = duration)]
    wait: Duration,

    /// Do not ask for confirmation
    #[arg(long, env = "HEADWATER_YES", value_parser = clap::builder::FalseyValueParser::new())]
    yes: bool,
}

/// Restores and prints the result.
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
    // If placing the copy failed, the service runs again with the old database.
    let started = before.start();
    let placed = placed?;
    started.with_context(|| in_place(&placed))?;
    let came = before.wait(&nats, &placed, args.wait).await;
    came.with_context(|| in_place(&placed))?;
    let report = Report {
        service: args.service.clone(),
        database: before.database,
        position: placed.facts.head,
        epoch: placed.facts.epoch,
        is_new_life: lost.is_seen,
        lost: lost.events(),
        aside: placed.aside,
        came: if lost.is_seen {
            Came::Restored(stream::restore_one(&nats, &args.service).await?)
        } else {
            Came::Verified(stream::verify_one(&nats, &args.service, &Screen::new()).await?)
        },
    };
    common.print(&report)?;
    Ok(report.exit())
}

/// The context of an error after the copy was put in place.
fn in_place(placed: &Restored) -> String {
    let aside = placed.aside.as_ref();
    let aside = aside.map(|aside| format!(", the previous file is {}", aside.display()));
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
    /// The path of the previous database file.
    aside: Option<PathBuf>,
    #[serde(flatten)]
    came: Came,
}

/// The check after the service has started.
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
        let (service, epoch) = (
            &self.service,
            if self.is_new_life {
                ", in a new epoch"
            } else {
                ""
            },
        );
        writeln!(
            f,
            "{service} serves from the copy, up to {}{epoch}",
            self.position
        )?;
        if self.lost > 0 {
            writeln!(f, "lost: {} events", self.lost)?;
        }
        if let Some(aside) = &self.aside {
            let aside = printable(&aside.display().to_string());
            writeln!(
                f,
                "previous database: {aside}; remove it when you no longer need it"
            )?;
        }
        match &self.came {
            Came::Verified(report) => report.fmt(f),
            Came::Restored(report) => report.fmt(f),
        }
    }
}
