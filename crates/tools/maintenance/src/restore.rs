//! `headwater restore`: puts a copy in the place of a source's database.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use headwater::backup::{self, Facts, Place, Placed};
use headwater::operator::{Endpoint, StatusAnswer};
use headwater::{Clock, stream as streams};
use serde::Serialize;
use terminal::output::{duration, printable};
use terminal::{Exit, confirm};
use tokio::time::Instant;

use crate::backup::Data;
use crate::nats::Nats;
use crate::provision::{is_missing, source};
use crate::survey::Tail;
use crate::{Common, complain, shop, stream, verify};

mod unit;

use unit::Unit;

/// How often the service is asked whether it is there.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

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
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = common.connect().await?;
    let before = Before::look(&nats, &args).await?;
    for line in before.plan() {
        complain(&printable(&line));
    }
    let what = format!("restore {}", before.database.display());
    confirm(&what, args.yes)?;
    let place = before.stop()?;
    let lost = before.lost_now(&nats, &args.file).await?;
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
            Came::Restored(stream::restore(common, &nats, &args.service).await?)
        } else {
            Came::Verified(stream::verify_one(common, &args.service).await?)
        },
    };
    common.print(&report)?;
    Ok(report.exit())
}

/// What there is before anything is done.
struct Before {
    service: String,
    database: PathBuf,
    copy: Facts,
    has_digest: bool,
    /// What the database says of itself that is there, if it says anything.
    present: Result<Facts, String>,
    lost: Lost,
    /// Where systemd runs the service.
    unit: Option<Unit>,
}

/// What the copy does not have.
#[derive(Clone, Copy, Default)]
struct Lost {
    /// How many events of its own life.
    own: u64,
    /// How many of another life, which the database is in that is there, or the stream.
    other: u64,
    /// Up to where that life has the same events as the copy, as far as that is known.
    shared: u64,
    /// Whether others have seen any of them, or know another life: its positions are taken.
    is_seen: bool,
}

impl Lost {
    fn events(&self) -> u64 {
        self.own + self.other
    }
}

impl Before {
    async fn look(nats: &Nats, args: &Args) -> anyhow::Result<Self> {
        let (service, file) = (args.service.clone(), args.file.clone());
        let checking = move || anyhow::Ok((backup::check_digest(&file)?, backup::check(&file)?));
        let (has_digest, copy) = tokio::task::spawn_blocking(checking).await??;
        let shown = args.file.display();
        ensure!(
            copy.owner == service,
            "{shown} is of the service {}, not of {service}",
            copy.owner
        );
        ensure!(
            !copy.is_copy(),
            "{service} has nothing of its own in {shown}: it is folded from events; \
             `headwater rebuild {service}`"
        );
        let database = args.data.database(&service);
        copy.check_keys(&database)?;
        let present = Facts::of(&database).map_err(|error| format!("{error:#}"));
        if let Ok(present) = &present {
            expect_no_newer(&copy, present)?;
        }
        let mut before = Self {
            unit: Unit::of(&service, &database)?,
            lost: Lost::default(),
            service,
            database,
            copy,
            has_digest,
            present,
        };
        before.lost = before.lost(nats, &args.file).await?;
        Ok(before)
    }

    /// What the copy does not have of what the stream, the projections and the database have.
    async fn lost(&self, nats: &Nats, copy: &Path) -> anyhow::Result<Lost> {
        let (service, epoch) = (&self.service, &self.copy.epoch);
        let mut known = self.copy.head;
        let (mut other, mut shared) = (0, 0);
        let mut is_seen = false;
        match Facts::of(&self.database) {
            Ok(present) if present.epoch == *epoch => known = known.max(present.head),
            Ok(present) => {
                // Of one that is damaged all is lost.
                shared = backup::common(copy, &self.database).unwrap_or(0);
                other = present.head;
            }
            Err(_) => {}
        }
        let name = streams::name(service);
        match nats.jetstream.get_stream(&name).await {
            Ok(found) => {
                let info = found.cached_info();
                let end = |epoch| Tail::read(nats, info, service, epoch);
                let own = end(Some(&**epoch)).await?.map_or(0, |tail| tail.position);
                let any = end(None).await?.map(|tail| tail.position);
                known = known.max(own);
                if own == 0 {
                    other = other.max(any.unwrap_or(0));
                }
                // None where nothing of the source's is near the end.
                is_seen = own > self.copy.head || (own == 0 && any != Some(0));
            }
            Err(error) if is_missing(&error.kind()) => {}
            Err(error) => return Err(error).context(format!("look at the stream {name}")),
        }
        let shop = shop::look(nats, &BTreeSet::new(), Duration::ZERO).await?;
        for status in shop.services.values().flat_map(|it| &it.projections) {
            let Some(of) = status.epochs.get(service) else {
                continue;
            };
            let applied = status.positions.get(service);
            if of == epoch {
                is_seen |= applied > self.copy.head;
                known = known.max(applied);
            } else {
                is_seen |= applied > 0;
                other = other.max(applied);
            }
        }
        Ok(Lost {
            own: known - self.copy.head,
            other: other.saturating_sub(shared),
            shared,
            is_seen,
        })
    }

    fn plan(&self) -> Vec<String> {
        let (service, head) = (&self.service, self.copy.head);
        let digest = if self.has_digest {
            "its digest is right"
        } else {
            "there is no digest beside it"
        };
        let mut lines = vec![format!(
            "the copy is whole, {digest}; it goes up to {service}:{head}"
        )];
        match &self.present {
            Ok(present) => lines.push(format!(
                "it replaces a database up to {service}:{}{}, which is kept beside it",
                present.head,
                if present.epoch == self.copy.epoch {
                    ""
                } else {
                    ", of another life"
                }
            )),
            Err(why) => lines.push(format!("what is there now cannot be read: {why}")),
        }
        let Lost {
            own, other, shared, ..
        } = self.lost;
        if own > 0 {
            lines.push(format!(
                "LOST at the source: the {own} events after {service}:{head}"
            ));
        }
        if other > 0 {
            lines.push(format!(
                "LOST at the source: {other} events of another life than the copy's, all that it \
                 has after {service}:{shared}"
            ));
        }
        if self.lost.events() > 0 {
            lines.push(format!(
                "look at them now, with `headwater tail '{service}.>' --last {} --no-follow`, and \
                 repeat what must not be lost",
                self.lost.events()
            ));
        }
        if self.lost.is_seen {
            lines.push(format!(
                "others have seen events that the copy does not have: it begins a new life, the \
                 stream {} is made again from it, and the projections of {service} are rebuilt",
                streams::name(service)
            ));
        }
        if let Some(unit) = &self.unit {
            lines.push(format!("{unit} is stopped for it, and started"));
        }
        lines
    }

    /// Stops the service, where systemd runs it, and keeps everybody away from the database.
    fn stop(&self) -> anyhow::Result<Place> {
        let Some(unit) = &self.unit else {
            return Place::take(&self.database).context("nothing was changed");
        };
        unit.stop()?;
        let taken = Place::take(&self.database);
        if taken.is_err() {
            // Somebody else has it open, and what was stopped serves on.
            unit.start()?;
        }
        taken.context("nothing was changed")
    }

    /// What is lost now that nobody writes any more.
    ///
    /// # Errors
    /// A loss, or a new life, that was not spoken of before.
    async fn lost_now(&self, nats: &Nats, copy: &Path) -> anyhow::Result<Lost> {
        let lost = self.lost(nats, copy).await;
        let is_as_said = |lost: &Lost| {
            (self.lost.events() > 0 || lost.events() == 0) && (self.lost.is_seen || !lost.is_seen)
        };
        match lost {
            Ok(lost) if is_as_said(&lost) => Ok(lost),
            lost => {
                self.start()?;
                let events = lost?.events();
                bail!("{events} events would be lost now, nothing was changed; run it again")
            }
        }
    }

    fn start(&self) -> anyhow::Result<()> {
        if let Some(unit) = &self.unit {
            return unit.start();
        }
        complain(&format!("start {} now; this waits for it", self.service));
        Ok(())
    }

    /// Waits until the service answers from the database that was put in place.
    async fn wait(&self, nats: &Nats, placed: &Placed, wait: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + wait;
        loop {
            let asked = nats
                .ask::<StatusAnswer>(&self.service, Endpoint::Status, &())
                .await;
            let error = match asked {
                Ok(status) if status.epoch != placed.facts.epoch => {
                    bail!("{} runs with another database", self.service)
                }
                Ok(status) if status.parts.contains_key("relay") => return Ok(()),
                Ok(_) => anyhow!("its relay has not begun"),
                Err(error) => error,
            };
            nats.expect_connected()?;
            if let Some(unit) = &self.unit {
                unit.expect_up()?;
            }
            if Instant::now() >= deadline {
                return Err(error);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// Whether the copy was written by a newer program than the one that wrote the database.
fn expect_no_newer(copy: &Facts, present: &Facts) -> anyhow::Result<()> {
    let mut missing = copy
        .migrations
        .iter()
        .filter(|it| !present.migrations.contains(it));
    match missing.next() {
        None => Ok(()),
        Some(name) => bail!(
            "the copy was written by a newer version, which has the migration {name}: install that"
        ),
    }
}

/// For an error behind which the copy is in its place.
fn said(placed: &Placed) -> String {
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
