//! `headwater stream`: a source's stream, made again from its outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream::context::{CreateStreamErrorKind, RequestError, RequestErrorKind};
use async_nats::jetstream::stream::Config;
use async_nats::jetstream::{ErrorCode, consumer};
use clap::builder::FalseyValueParser;
use futures_util::TryStreamExt as _;
use headwater::health::State;
use headwater::operator::{
    Endpoint, EventsAnswer, EventsRequest, FoldState, FoldStatus, StatusAnswer,
};
use headwater::stream;
use serde::Serialize;
use terminal::output::printable;
use terminal::{Bar, Exit, Screen, confirm};
use tokio::time::Instant;

use crate::fold::Target;
use crate::nats::{Nats, Unreachable};
use crate::provision::{is_missing, source};
use crate::shop::{self, Shop};
use crate::survey::Tail;
use crate::{Common, complain, fold, verify};

/// How often the stream is looked at while its relay fills it.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long the relay may publish nothing before it is given up.
const STANDSTILL: Duration = Duration::from_mins(1);

/// How often the stream is made again where the relay was quicker, with settings of its own.
const ATTEMPTS: usize = 5;

/// How long relays and projections have to catch up before what they have is compared.
const VERIFY_WAIT: Duration = Duration::from_secs(30);

/// Restore a source's stream from its outbox
///
/// For a stream that is not what the outbox says: somebody published onto the source's subjects,
/// events are missing, or it has a setting that nobody can change.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    Restore(Restore),
}

/// Delete a source's stream, have it filled again from the outbox, and rebuild what reads it
///
/// The new stream has the settings of the old one. What only the stream has is lost: events that
/// were published by hand, and those of former epochs; how many there are is said before. Then
/// each projection of the source is rebuilt, and the source is verified.
///
/// If the database was put back from an old copy, this is the wrong remedy: put back the newest
/// copy.
///
/// Exit codes: 0 done, and all agree; 3 done, and something differs; 4 the broker or a service
/// cannot be reached; 2 the command line cannot be followed, or --yes is missing, nothing was done;
/// 1 something failed.
#[derive(Clone, Debug, clap::Args)]
struct Restore {
    /// The source, such as `orders`
    #[arg(value_name = "SOURCE", value_parser = source)]
    source: String,

    /// Do not ask
    #[arg(long, env = "HEADWATER_YES", value_parser = FalseyValueParser::new())]
    yes: bool,
}

/// Restores and prints what it came to.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let Action::Restore(args) = args.action;
    let nats = common.connect().await?;
    let before = Before::look(&nats, &args.source).await?;
    for line in before.plan() {
        complain(&printable(&line));
    }
    confirm(&format!("restore {}", before.name), args.yes)?;
    let report = before.restore(common, &nats).await?;
    common.print(&report)?;
    Ok(report.exit())
}

/// Restores the stream of `source` without asking.
pub(crate) async fn restore(common: &Common, nats: &Nats, source: &str) -> anyhow::Result<Report> {
    Before::look(nats, source)
        .await?
        .restore(common, nats)
        .await
}

/// What there is before anything is done.
struct Before {
    name: String,
    status: StatusAnswer,
    /// The stream's settings; none where there is no stream.
    config: Option<Config>,
    /// The consumers of its readers, which go with the stream: they may not be allowed to make them.
    consumers: Vec<consumer::Config>,
    /// What is in the stream and not in the outbox, if the stream can be read.
    lost: Option<Lost>,
    /// The services with a projection of the source, and the names of these projections.
    readers: BTreeMap<String, Vec<String>>,
    /// Projections that know more than the outbox, as sentences.
    ahead: Vec<String>,
}

/// What goes with the stream.
#[derive(Clone, Debug, Default, Serialize)]
struct Lost {
    by_hand: u64,
    former: u64,
    /// Events of this epoch that the outbox does not have.
    ahead: usize,
    /// Events of this epoch that are another one in the outbox.
    altered: usize,
}

impl Before {
    /// Looks at the source, its stream, and who reads it. Errors with [`Unreachable`] where the
    /// source does not answer: nobody would fill the stream.
    async fn look(nats: &Nats, source: &str) -> anyhow::Result<Self> {
        let status: StatusAnswer = nats.ask(source, Endpoint::Status, &()).await?;
        ensure!(
            status.parts.contains_key("relay"),
            "{source} has no outbox that a stream could be filled from"
        );
        expect_whole(nats, &status).await?;
        let name = stream::name(source);
        let mut consumers = Vec::new();
        let config = match nats.jetstream.get_stream(&name).await {
            Ok(found) => {
                let mut all = found.consumers();
                while let Some(consumer) = all.try_next().await? {
                    consumers.push(consumer.config);
                }
                consumers.retain(|config| config.metadata.contains_key("headwater.projection"));
                Some(found.cached_info().config.clone())
            }
            Err(error) if is_missing(&error.kind()) => None,
            Err(error) => return Err(error).context(format!("look at the stream {name}")),
        };
        let lost = match &config {
            Some(_) => Lost::of(nats, &status).await.ok(),
            None => Some(Lost::default()),
        };
        let shop = shop::look(nats, &BTreeSet::new(), Duration::ZERO).await?;
        Ok(Self {
            name,
            config,
            consumers,
            lost,
            readers: readers(&shop, source),
            ahead: ahead(&shop, &status),
            status,
        })
    }

    async fn restore(self, common: &Common, nats: &Nats) -> anyhow::Result<Report> {
        self.make_again(nats).await?;
        let screen = Screen::new();
        let published = self.wait_until_filled(nats, &screen).await?;
        let rebuilt = self.rebuild(nats, &screen).await?;
        let source = self.status.service;
        Ok(Report {
            rebuilt,
            stream: self.name,
            lost: self.lost,
            published,
            verify: verify_one(common, &source).await?,
            source,
        })
    }

    /// What will be done, and what is lost.
    fn plan(&self) -> Vec<String> {
        let Self { name, status, .. } = self;
        let (source, head) = (&status.service, status.head);
        let mut lines = vec![format!(
            "{name} is deleted, made again with its settings, and filled with the {head} events of \
             the outbox of {source} (epoch {})",
            status.epoch
        )];
        match &self.lost {
            None => lines.push(format!(
                "{name} cannot be read: how many events are lost with it is not known"
            )),
            Some(lost) => lines.extend(lost.lines()),
        }
        lines.extend(self.ahead.iter().cloned());
        for (service, projections) in &self.readers {
            lines.push(format!(
                "{} of {service} is rebuilt",
                projections.join(", ")
            ));
        }
        lines
    }

    /// Deletes the stream and makes it again with the settings that it had.
    async fn make_again(&self, nats: &Nats) -> anyhow::Result<()> {
        let Some(is) = &self.config else {
            // The relay makes it.
            return Ok(());
        };
        let wanted = stream::settings(&self.status.service, is.num_replicas);
        let config = stream::again(is, &wanted);
        for _ in 0..ATTEMPTS {
            match nats.jetstream.delete_stream(&self.name).await {
                Ok(_) => {}
                Err(error) if is_gone(&error.to_string()) => {}
                Err(error) => {
                    nats.expect_connected()?;
                    let error = anyhow::Error::from(error);
                    // The stream is there: its state was read a moment ago.
                    let may_not = is_nobody(&error)
                        .then_some(": this user may not, nothing was done; log in as the operator");
                    let may_not = may_not.unwrap_or_default();
                    return Err(error)
                        .with_context(|| format!("delete the stream {}{may_not}", self.name));
                }
            }
            match nats.jetstream.create_stream(config.clone()).await {
                Ok(made) => {
                    for config in self.consumers.clone() {
                        // Its reader may be quicker.
                        let _ = made.create_consumer(config).await;
                    }
                    return Ok(());
                }
                // The relay was quicker, and does not know the settings.
                Err(error) if is_in_use(&error.kind()) => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("make the stream {} again; its relay does", self.name)
                    });
                }
            }
        }
        let updated = nats.jetstream.update_stream(&config).await;
        updated.with_context(|| format!("give {} its settings back", self.name))?;
        Ok(())
    }

    /// Waits until the relay has published what the outbox had; gives how far it is then.
    async fn wait_until_filled(&self, nats: &Nats, screen: &Screen) -> anyhow::Result<u64> {
        let (source, head) = (&self.status.service, self.status.head);
        let bar = screen.bar(&self.name, head);
        let (mut published, mut moved) = (0, Instant::now());
        loop {
            let (now, state) = self.published(nats, &bar).await?;
            if now >= head && matches!(state, Some(State::Ok(_))) {
                return Ok(now);
            }
            if now > published {
                (published, moved) = (now, Instant::now());
            }
            ensure!(
                moved.elapsed() < STANDSTILL,
                "the relay of {source} has stood still for {STANDSTILL:?} at {published} of {head}: {}",
                state.map_or_else(
                    || "it does not answer".to_owned(),
                    |state| format!("{state:?}")
                )
            );
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// The newest position in the stream, and what the relay says of itself.
    async fn published(&self, nats: &Nats, bar: &Bar) -> anyhow::Result<(u64, Option<State>)> {
        let Self { name, status, .. } = self;
        let (source, epoch) = (&status.service, Some(&*status.epoch));
        let asked: anyhow::Result<StatusAnswer> = nats.ask(source, Endpoint::Status, &()).await;
        let state = match asked {
            Ok(status) => status.parts.get("relay").cloned(),
            Err(error) if is_broker(&error) => return Err(error),
            Err(_) => None,
        };
        let Ok(found) = nats.jetstream.get_stream(name).await else {
            nats.expect_connected()?;
            return Ok((0, state));
        };
        let tail = Tail::read(nats, found.cached_info(), source, epoch).await?;
        let position = tail.map_or(0, |tail| tail.position);
        bar.at(position);
        Ok((position, state))
    }

    /// Has each projection of the source rebuilt. One whose service refuses is in the report.
    async fn rebuild(&self, nats: &Nats, screen: &Screen) -> anyhow::Result<Vec<Rebuilt>> {
        let readers = self.readers.iter();
        let targets = readers.flat_map(|(service, projections)| {
            projections.iter().map(|projection| Target {
                service: service.clone(),
                projection: Some(projection.clone()),
            })
        });
        let mut all = Vec::new();
        for target in targets {
            let failure = match rebuild(nats, &target, screen).await {
                Ok(status) if status.state == FoldState::Done => None,
                Ok(status) => Some(status.message.unwrap_or_else(|| "it failed".to_owned())),
                Err(error) if is_broker(&error) => return Err(error),
                Err(error) => Some(headwater::causes(&error)),
            };
            all.push(Rebuilt {
                service: target.service,
                projection: target.projection.unwrap_or_default(),
                failure,
            });
        }
        Ok(all)
    }
}

/// Compares all copies of `source`.
pub(crate) async fn verify_one(common: &Common, source: &str) -> anyhow::Result<verify::Report> {
    let args = verify::Args {
        sources: vec![source.to_owned()],
        wait: VERIFY_WAIT,
    };
    verify::run(common, args).await
}

async fn rebuild(nats: &Nats, target: &Target, screen: &Screen) -> anyhow::Result<FoldStatus> {
    let begun = target.ask(nats, Endpoint::Rebuild).await?;
    fold::follow(nats, target, begun, screen).await
}

/// Whether the outbox has its first and its newest event.
async fn expect_whole(nats: &Nats, status: &StatusAnswer) -> anyhow::Result<()> {
    for from in [1, status.head] {
        if status.head == 0 {
            break;
        }
        let request = EventsRequest {
            epoch: Some(status.epoch.clone()),
            from,
            limit: 1,
            max_bytes: Some(0),
            offset: Some(0),
        };
        let source = &status.service;
        let answer: EventsAnswer = nats.ask(source, Endpoint::Events, &request).await?;
        let first = answer.events.first().map(|row| row.position);
        ensure!(
            first == Some(from),
            "the outbox of {source} does not have its event {from} of {}: it cannot fill a stream",
            status.head
        );
    }
    Ok(())
}

fn readers(shop: &Shop, source: &str) -> BTreeMap<String, Vec<String>> {
    let mut readers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for status in shop.services.values() {
        for projection in &status.projections {
            if projection.positions.0.contains_key(source) {
                let names = readers.entry(status.service.clone()).or_default();
                names.push(projection.name.clone());
            }
        }
    }
    readers
}

/// Says which projections have applied more than the outbox has.
fn ahead(shop: &Shop, source: &StatusAnswer) -> Vec<String> {
    let statuses = shop.services.values();
    let projections = statuses.flat_map(|status| &status.projections);
    projections
        .filter_map(|projection| {
            let applied = *projection.positions.0.get(&source.service)?;
            (applied > source.head).then(|| {
                format!(
                    "{} has applied {applied} of {}: is the database of {} an old copy? Then put \
                     back the newest one instead",
                    projection.name, source.head, source.service
                )
            })
        })
        .collect()
}

impl Lost {
    async fn of(nats: &Nats, status: &StatusAnswer) -> anyhow::Result<Self> {
        let bar = Screen::new().bar(&status.service, status.head);
        let found = verify::source::check(nats, status, Duration::ZERO, &bar).await?;
        Ok(Self {
            by_hand: found.by_hand,
            former: found.former.values().sum(),
            ahead: found.ahead.len(),
            altered: found.altered.len(),
        })
    }

    fn lines(&self) -> Vec<String> {
        let counts = [
            (self.by_hand, "that were published by hand"),
            (self.former, "of other epochs"),
            (self.ahead as u64, "that the outbox does not have"),
            (self.altered as u64, "that are others in the outbox"),
        ];
        let lost = counts.iter().filter(|(count, _)| *count > 0);
        lost.map(|(count, which)| format!("lost with the stream: {count} events {which}"))
            .collect()
    }
}

fn is_broker(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(Unreachable::Broker { .. } | Unreachable::Login { .. })
    )
}

/// Whether there is nobody who would take a request.
fn is_nobody(error: &anyhow::Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref());
    kinds
        .map(RequestError::kind)
        .any(|kind| kind == RequestErrorKind::NoResponders)
}

/// A deletion says so in words only.
fn is_gone(error: &str) -> bool {
    error.contains(&ErrorCode::STREAM_NOT_FOUND.0.to_string())
}

fn is_in_use(kind: &CreateStreamErrorKind) -> bool {
    matches!(kind, CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    stream: String,
    source: String,
    /// None where the stream could not be read.
    lost: Option<Lost>,
    /// The newest position in the stream.
    published: u64,
    rebuilt: Vec<Rebuilt>,
    verify: verify::Report,
}

#[derive(Debug, Serialize)]
struct Rebuilt {
    service: String,
    projection: String,
    /// Why not.
    failure: Option<String>,
}

impl Report {
    pub(crate) fn exit(&self) -> Exit {
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
            "{} is filled from the outbox of {}, up to {}",
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
