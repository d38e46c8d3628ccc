//! `headwater backup`: copies databases of sources while the services run.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use client::Common;
use headwater::Clock;
use headwater::backup::{self, Facts, unwatched};
use headwater::causes;
use serde::Serialize;
use terminal::Exit;
use terminal::output::printable;
use terminal::table::bytes;

/// Copy the databases of sources while they run, each with a digest
///
/// Each copy is a snapshot of one moment. It is checked and synced to disk before it appears under
/// its name: `orders-20261130T041200Z.db`, with `orders-20261130T041200Z.db.sha256` for
/// `sha256sum -c`. Databases that can be rebuilt from events, such as `purchases.db`, are skipped.
/// The key file (`users.keys`) is never copied: keep it apart from the copies.
///
/// Exit codes: 0 done, 1 a copy failed (the others were made), 2 usage error.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Services to copy, such as `orders` [default: all sources in the data folder]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,

    /// Folder for the copies; it is created if missing
    #[arg(long, value_name = "FOLDER", env = "HEADWATER_BACKUP_TO")]
    to: PathBuf,

    /// Number of copies to keep of each database
    #[arg(long, value_name = "COPIES", env = "HEADWATER_BACKUP_KEEP", default_value = "7", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,

    /// The path of the databases.
    #[command(flatten)]
    data: Data,
}

/// The path of the databases.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Data {
    /// Folder of the databases: `orders/orders.db` or `orders.db` in it
    #[arg(
        long,
        value_name = "FOLDER",
        env = "HEADWATER_DATA",
        default_value = "/var/lib/headwater"
    )]
    data: PathBuf,
}

impl Data {
    /// The path of the database of `service`, whether it exists or not.
    pub(crate) fn database(&self, service: &str) -> PathBuf {
        let below = self.data.join(service);
        let folder = if below.is_dir() {
            below
        } else {
            self.data.clone()
        };
        folder.join(format!("{service}.db"))
    }

    /// The services that have a database in the folder.
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
                // If the file cannot be read, copying it reports that.
                _ => {
                    services.insert(file.0);
                }
            }
        }
        ensure!(
            !services.is_empty(),
            "{} has no databases; name their folder with --data",
            self.data.display()
        );
        Ok(services)
    }
}

/// Whether the file does not exist, rather than being inaccessible.
fn is_none(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Copies the databases and prints the result.
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
                Err(error) => report
                    .failed
                    .push(format!("{service}: {}", causes(error.as_ref()))),
            }
        }
        Ok(report)
    }

    /// Copies the database of `service`. `may_skip`: skip it if nothing would be lost with it.
    fn one(&self, service: &str, may_skip: bool) -> anyhow::Result<Option<Copied>> {
        let database = self.data.database(service);
        let facts = Facts::of(&database)?;
        if may_skip && facts.is_copy() {
            return Ok(None);
        }
        if facts.owner != service {
            bail!(
                "{} belongs to the service {}",
                database.display(),
                facts.owner
            );
        }
        let copy = backup::make(&database, &self.to, &Clock::system(), &unwatched())?;
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

/// The copies made and those that failed.
#[derive(Debug, Default, Serialize)]
struct Report {
    copies: Vec<Copied>,
    /// Services that lose nothing with their database.
    skipped: Vec<String>,
    failed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Copied {
    service: String,
    file: PathBuf,
    bytes: u64,
    epoch: String,
    /// The position of the newest event.
    position: u64,
    sha256: String,
    /// Old copies that were removed.
    removed: Vec<PathBuf>,
    /// The key file that the copy cannot be read without.
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
                    "{} is not copied: keep one copy of it elsewhere, and overwrite that copy",
                    shown(keys)
                )
            }));
        }
        let skipped = self.skipped.iter();
        lines.extend(skipped.map(|it| format!("{it}: skipped, it can be rebuilt from events")));
        let failed = self.failed.iter();
        lines.extend(failed.map(|why| format!("NOT COPIED: {}", printable(why))));
        f.write_str(&lines.join("\n"))
    }
}

fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}
