//! `headwater backup`: copies of sources' databases, made while they run.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use client::Common;
use headwater::Clock;
use headwater::backup::{self, Facts};
use serde::Serialize;
use terminal::Exit;
use terminal::output::printable;
use terminal::table::bytes;

/// Copy the databases of sources while they run, each with a digest
///
/// Each copy is of one moment, is checked, and appears under its name when it is whole and on the
/// disk: `orders-20261130T041200Z.db`, with `orders-20261130T041200Z.db.sha256` for `sha256sum -c`.
/// What is folded from others' events, such as `purchases.db`, is left out. The key file
/// (`users.keys`) is never copied: keep it apart from these.
///
/// Exit codes: 0 done; 1 something failed, the other copies were made; 2 the command line cannot be
/// followed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only these, such as `orders`; all sources in the data folder if there are none
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// The folder for the copies; made when it is not there
    #[arg(long, value_name = "FOLDER", env = "HEADWATER_BACKUP_TO")]
    to: PathBuf,

    /// How many copies of each database are kept
    #[arg(long, value_name = "COPIES", env = "HEADWATER_BACKUP_KEEP", default_value = "7", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,

    /// Where the databases are.
    #[command(flatten)]
    data: Data,
}

/// Where the databases are.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Data {
    /// The folder of the databases: `orders/orders.db` or `orders.db` in it
    #[arg(
        long,
        value_name = "FOLDER",
        env = "HEADWATER_DATA",
        default_value = "/var/lib/headwater"
    )]
    data: PathBuf,
}

impl Data {
    /// Where the database of `service` is, or should be.
    pub(crate) fn database(&self, service: &str) -> PathBuf {
        let below = self.data.join(service);
        let folder = if below.is_dir() {
            below
        } else {
            self.data.clone()
        };
        folder.join(format!("{service}.db"))
    }

    /// The services that have a database there.
    fn services(&self) -> anyhow::Result<BTreeSet<String>> {
        let context = || format!("look for databases in {}", self.data.display());
        let mut services = BTreeSet::new();
        for entry in std::fs::read_dir(&self.data).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let file = match name.strip_suffix(".db") {
                Some(service) => (service.to_owned(), path.clone()),
                None => (name.to_string(), path.join(format!("{name}.db"))),
            };
            match std::fs::metadata(&file.1) {
                Ok(found) if !found.is_file() => {}
                Err(error) if is_none(error.kind()) => {}
                // That it may not be read is said where it is copied.
                _ => {
                    services.insert(file.0);
                }
            }
        }
        ensure!(
            !services.is_empty(),
            "{} has no databases; say where they are with --data",
            self.data.display()
        );
        Ok(services)
    }
}

/// Whether there is no such file, and not one that may not be looked at.
fn is_none(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Copies them, and prints what there is.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let report = tokio::task::spawn_blocking(move || args.run()).await??;
    common.print(&report)?;
    Ok(report.exit())
}

impl Args {
    fn run(self) -> anyhow::Result<Report> {
        let is_all = self.services.is_empty();
        let services = if is_all {
            self.data.services()?
        } else {
            self.services.iter().cloned().collect()
        };
        let mut report = Report::default();
        for service in services {
            match self.one(&service, is_all) {
                Ok(Some(copy)) => report.copies.push(copy),
                Ok(None) => report.skipped.push(service),
                Err(error) => report.failed.push(format!("{service}: {error:#}")),
            }
        }
        Ok(report)
    }

    /// Copies the database of `service`, unless it may be left out and nothing would be lost with
    /// it.
    fn one(&self, service: &str, may_skip: bool) -> anyhow::Result<Option<Copied>> {
        let database = self.data.database(service);
        let facts = Facts::of(&database)?;
        if may_skip && facts.is_copy() {
            return Ok(None);
        }
        if facts.owner != service {
            bail!("{} is of the service {}", database.display(), facts.owner);
        }
        let copy = backup::make(&database, &self.to, &Clock::system())?;
        let keep = usize::try_from(self.keep).unwrap_or(usize::MAX);
        let removed = backup::prune(&self.to, service, keep).context("remove older copies")?;
        Ok(Some(Copied {
            service: service.to_owned(),
            file: copy.file,
            bytes: copy.bytes,
            epoch: copy.facts.epoch,
            position: copy.facts.head,
            sha256: copy.sha256,
            removed,
            key_file: Some(database.with_extension("keys")).filter(|file| file.exists()),
        }))
    }
}

/// What was copied, and what not.
#[derive(Debug, Default, Serialize)]
struct Report {
    copies: Vec<Copied>,
    /// Those of which nothing is lost with their database.
    skipped: Vec<String>,
    failed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Copied {
    service: String,
    file: PathBuf,
    bytes: u64,
    epoch: String,
    /// Of the newest event.
    position: u64,
    sha256: String,
    /// Older copies that were too many.
    removed: Vec<PathBuf>,
    /// What it cannot be read without, and is not in it.
    key_file: Option<PathBuf>,
}

impl Report {
    fn exit(&self) -> Exit {
        if self.failed.is_empty() {
            Exit::Done
        } else {
            Exit::Failed
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let mut lines = Vec::new();
        for copy in &self.copies {
            let size = bytes(copy.bytes);
            let (name, at) = (shown(&copy.file), copy.position);
            lines.push(format!("{}: {name}, {size}, up to {at}", copy.service));
            let removed = copy
                .removed
                .iter()
                .map(|old| format!("removed {}", shown(old)));
            lines.extend(removed);
            let keys = copy.key_file.iter();
            lines.extend(keys.map(|keys| {
                format!(
                    "{} is not in it: keep one copy of that apart, and overwrite it",
                    shown(keys)
                )
            }));
        }
        let skipped = self.skipped.iter();
        lines.extend(skipped.map(|it| format!("{it}: left out, it is folded from events")));
        let failed = self.failed.iter();
        lines.extend(failed.map(|why| format!("NOT COPIED: {}", printable(why))));
        f.write_str(&lines.join("\n"))
    }
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
