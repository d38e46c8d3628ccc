//! `headwater provision`: makes what services need at the broker and may not make themselves, and
//! brings what is there to its settings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{ErrorCode, consumer};
use clap::builder::FalseyValueParser;
use headwater::projection::{self, Consumer};
use headwater::schema;
use headwater::stream::{self, Difference};
use serde::Serialize;
use terminal::output::{duration, printable};
use terminal::{Exit, confirm};
use tokio::time::Instant;

use crate::nats::{Nats, Unreachable};
use crate::survey::Survey;
use crate::{Common, complain};

/// The pause between two attempts to reach the broker.
const PAUSE: Duration = Duration::from_millis(250);

/// The sources of the shop, which `headwater import` knows, too.
pub(crate) const SHOP: [&str; 3] = ["users", "products", "orders"];

/// The projections of the shop, and what they read.
const SHOP_PROJECTIONS: [(&str, &[&str]); 2] = [
    ("purchases", &SHOP),
    ("orders-catalogue", &["users", "products"]),
];

/// Make the streams, the consumers and the bucket that services need, and bring those there are to
/// their settings
///
/// For where services may not do it themselves, as with the accounts of deploy/nats. The consumers
/// are those of the shop's projections and of all others that a running service has: start a new
/// service first, it waits.
///
/// Limits, placement, and all that no service has a wish about stay as they are; what is in a stream
/// is never touched. What JetStream does not let anybody change is shown and left alone, with the
/// stream.
///
/// Exit codes: 0 all is as it should be now, 3 something is not: with --dry-run what would be
/// changed, without it what cannot be; 4 the broker cannot be reached, 2 the command line cannot be
/// followed, or a change needs --yes, 1 anything else.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The sources whose streams and consumers are meant [default: those of the shop, all that have a
    /// stream or a relay, and the bucket]
    #[arg(value_name = "SOURCE", value_parser = source)]
    pub sources: Vec<String>,

    /// Only show what would be done
    #[arg(long, env = "HEADWATER_PROVISION_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,

    /// Copies of each stream [default: 1 for new ones; others keep theirs]
    #[arg(long, value_name = "N", env = "HEADWATER_NATS_REPLICAS", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: Option<u8>,

    /// Wait for the broker while it cannot be reached: `30s`
    #[arg(long, value_name = "DURATION", env = "HEADWATER_PROVISION_WAIT", value_parser = duration)]
    pub wait: Option<Duration>,

    /// Do not ask before what is there is changed
    #[arg(long, env = "HEADWATER_YES", value_parser = FalseyValueParser::new())]
    pub yes: bool,
}

/// A source's name is the first token of its subjects, and in capitals its stream's name.
pub(crate) fn source(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err("must be the name of a service: small letters, digits, - and _".to_owned());
    }
    Ok(text.to_owned())
}

#[derive(Debug, Serialize)]
struct Report {
    is_dry_run: bool,
    streams: Vec<Provided>,
    consumers: Vec<Provided>,
}

#[derive(Debug, Serialize)]
struct Provided {
    stream: String,
    /// Whose stream it is; none for the bucket.
    source: Option<String>,
    /// The consumer's name, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
    outcome: Outcome,
    /// Whether it was done, too.
    is_done: bool,
    differences: Vec<Difference>,
}

/// What became of a stream or a consumer, or would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Same,
    Made,
    Changed,
    /// Something would have to be changed that JetStream does not let anybody change.
    Refused,
}

impl Outcome {
    fn of(is_there: bool, differences: &[Difference]) -> Self {
        if !is_there {
            Self::Made
        } else if differences.is_empty() {
            Self::Same
        } else if differences.iter().all(|found| found.can_change) {
            Self::Changed
        } else {
            Self::Refused
        }
    }
}

/// A stream as it is to become, with its consumers.
struct Plan {
    source: Option<String>,
    /// As it is; none where it is not there.
    is: Option<Config>,
    wanted: Config,
    consumers: Vec<ConsumerPlan>,
}

/// A consumer as it is to become.
struct ConsumerPlan {
    /// As it is; none where it is not there.
    is: Option<consumer::Config>,
    wanted: Consumer,
}

/// Compares, asks, and does it.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let nats = connect(common, args.wait.unwrap_or_default()).await?;
    let plans = plans(&nats, &args).await?;
    if !args.dry_run {
        let before = Report::of(&plans, &args, false);
        let changed = before.changed();
        if !changed.is_empty() {
            for provided in before.all().filter(|one| one.outcome != Outcome::Same) {
                complain(&provided.to_string());
            }
            confirm(&format!("change {}", changed.join(", ")), args.yes)?;
        }
        for plan in &plans {
            plan.carry_out(&nats).await?;
        }
    }
    let report = Report::of(&plans, &args, !args.dry_run);
    common.print(&report)?;
    Ok(report.exit())
}

/// Connects; while the broker cannot be reached, again and again until `wait` is over.
async fn connect(common: &Common, wait: Duration) -> anyhow::Result<Nats> {
    let until = Instant::now() + wait;
    loop {
        let connected = common.connect().await;
        let is_away = connected
            .as_ref()
            .is_err_and(|error| matches!(error.downcast_ref(), Some(Unreachable::Broker { .. })));
        if !is_away || Instant::now() >= until {
            return connected;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is to become of the streams of the sources that are named, or of all that are known, and of
/// the bucket.
async fn plans(nats: &Nats, args: &Args) -> anyhow::Result<Vec<Plan>> {
    let found = Survey::take(nats).await?;
    found.brokers.expect_usable()?;
    let known = found.relays.iter().map(|relay| relay.source.clone());
    let sources: BTreeSet<String> = if args.sources.is_empty() {
        known.chain(SHOP.map(str::to_owned)).collect()
    } else {
        args.sources.iter().cloned().collect()
    };
    let readers = readers(&found);
    let mut plans = Vec::new();
    for source in sources {
        let wanted = |replicas| stream::settings(&source, replicas);
        let mut plan = Plan::of(nats, &stream::name(&source), wanted, args.replicas).await?;
        for projection in readers.get(&source).into_iter().flatten() {
            for consumer in Consumer::all(projection, &source) {
                plan.add(nats, consumer).await?;
            }
        }
        plan.source = Some(source);
        plans.push(plan);
    }
    if args.sources.is_empty() {
        let bucket = schema::bucket(1).name;
        plans.push(Plan::of(nats, &bucket, schema::bucket, args.replicas).await?);
    }
    Ok(plans)
}

/// The projections of each source.
fn readers(found: &Survey) -> BTreeMap<String, BTreeSet<String>> {
    let mut readers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let of_shop = SHOP_PROJECTIONS
        .iter()
        .flat_map(|(projection, sources)| sources.iter().map(move |source| (*source, *projection)));
    let running = found.projections.iter().flat_map(|projection| {
        let sources = projection.sources.keys();
        sources.map(move |source| (&**source, &*projection.name))
    });
    for (source, projection) in of_shop.chain(running) {
        let of_source = readers.entry(source.to_owned()).or_default();
        of_source.insert(projection.to_owned());
    }
    readers
}

impl Plan {
    async fn of(
        nats: &Nats,
        name: &str,
        settings: impl Fn(usize) -> Config,
        replicas: Option<u8>,
    ) -> anyhow::Result<Self> {
        let is = match nats.jetstream.get_stream(name).await {
            Ok(stream) => Some(stream.cached_info().config.clone()),
            Err(error) if is_missing(&error.kind()) => None,
            Err(error) => {
                nats.expect_connected()?;
                return Err(error).with_context(|| format!("look at the stream {name}"));
            }
        };
        let kept = is.as_ref().map_or(1, |config| config.num_replicas);
        Ok(Self {
            source: None,
            is,
            wanted: settings(replicas.map_or(kept, usize::from)),
            consumers: Vec::new(),
        })
    }

    /// Adds a consumer of the stream.
    async fn add(&mut self, nats: &Nats, wanted: Consumer) -> anyhow::Result<()> {
        let name = &self.wanted.name;
        let mut is = None;
        if self.is.is_some() {
            let stream = nats.jetstream.get_stream_no_info(name).await?;
            is = match stream.consumer_info(wanted.name()).await {
                Ok(info) => Some(info.config),
                Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
                Err(error) => {
                    nats.expect_connected()?;
                    return Err(error).with_context(|| {
                        format!("look at the consumer {} of {name}", wanted.name())
                    });
                }
            };
        }
        self.consumers.push(ConsumerPlan { is, wanted });
        Ok(())
    }

    fn differences(&self) -> Vec<Difference> {
        let is = self.is.as_ref();
        is.map_or_else(Vec::new, |is| stream::differences(is, &self.wanted))
    }

    fn outcome(&self) -> Outcome {
        Outcome::of(self.is.is_some(), &self.differences())
    }

    async fn carry_out(&self, nats: &Nats) -> anyhow::Result<()> {
        let name = &self.wanted.name;
        match (self.outcome(), &self.is) {
            (Outcome::Made, _) => {
                let made = nats.jetstream.create_stream(self.wanted.clone()).await;
                made.with_context(|| format!("make the stream {name}"))?;
            }
            (Outcome::Changed, Some(is)) => {
                let mut config = is.clone();
                stream::bring(&mut config, &self.wanted);
                let changed = nats.jetstream.update_stream(&config).await;
                changed.with_context(|| format!("change the stream {name}"))?;
            }
            _ => {}
        }
        let stream = nats.jetstream.get_stream_no_info(name).await?;
        for plan in &self.consumers {
            let done = plan.carry_out(&stream).await;
            done.with_context(|| format!("make the consumer {} of {name}", plan.wanted.name()))?;
        }
        Ok(())
    }

    fn provided(&self, is_done: bool) -> Provided {
        Provided {
            is_done,
            stream: self.wanted.name.clone(),
            source: self.source.clone(),
            consumer: None,
            outcome: self.outcome(),
            differences: self.differences(),
        }
    }
}

impl ConsumerPlan {
    fn differences(&self) -> Vec<Difference> {
        let Some(is) = &self.is else {
            return Vec::new();
        };
        let harm =
            projection::harm(is).map(|harm| (harm, "a new one, which hands over all events"));
        let is_labelled = self.wanted.labelled(is).is_none();
        let label = (!is_labelled).then_some(("out of date", "as this version writes them"));
        let found = [("settings", harm), ("description and metadata", label)];
        let found = found.into_iter().filter_map(|(setting, found)| {
            let (is, wanted) = found?;
            Some(Difference {
                setting: setting.to_owned(),
                is: is.to_owned(),
                wanted: wanted.to_owned(),
                can_change: true,
            })
        });
        found.collect()
    }

    /// A consumer that harms is made again: its reader places it where it is.
    async fn carry_out(&self, stream: &Stream<()>) -> anyhow::Result<()> {
        let is = self.is.as_ref();
        let name = self.wanted.name();
        if is.is_some_and(|is| projection::harm(is).is_some()) {
            stream.delete_consumer(name).await?;
        } else if let Some(is) = is {
            if let Some(config) = self.wanted.labelled(is) {
                stream.update_consumer(config).await?;
            }
            return Ok(());
        }
        stream.create_consumer(self.wanted.settings()).await?;
        Ok(())
    }

    fn provided(&self, of: &Plan, is_done: bool) -> Provided {
        let differences = self.differences();
        Provided {
            consumer: Some(self.wanted.name().to_owned()),
            outcome: Outcome::of(self.is.is_some(), &differences),
            differences,
            ..of.provided(is_done)
        }
    }
}

pub(crate) fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

impl Report {
    fn of(plans: &[Plan], args: &Args, is_done: bool) -> Self {
        let consumers = plans.iter().flat_map(|plan| {
            let consumers = plan.consumers.iter();
            consumers.map(move |consumer| consumer.provided(plan, is_done))
        });
        Self {
            is_dry_run: args.dry_run,
            streams: plans.iter().map(|plan| plan.provided(is_done)).collect(),
            consumers: consumers.collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Provided> {
        self.streams.iter().chain(&self.consumers)
    }

    /// The names of what is there and changed.
    fn changed(&self) -> Vec<String> {
        let changed = self.all().filter(|one| one.outcome == Outcome::Changed);
        changed.map(Provided::name).collect()
    }

    fn exit(&self) -> Exit {
        let is_well = self.all().all(|one| match one.outcome {
            Outcome::Same => true,
            Outcome::Made | Outcome::Changed => !self.is_dry_run,
            Outcome::Refused => false,
        });
        if is_well { Exit::Done } else { Exit::Different }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        for provided in self.all() {
            writeln!(f, "{provided}")?;
        }
        f.write_str(match (self.is_dry_run, self.exit()) {
            (true, Exit::Done) => "nothing to do",
            (true, _) => "nothing was done",
            (false, Exit::Done) => "all are as they should be",
            (false, _) => "NOT ALL are as they should be",
        })
    }
}

impl Provided {
    fn name(&self) -> String {
        match &self.consumer {
            Some(consumer) => format!("{} {consumer}", self.stream),
            None => self.stream.clone(),
        }
    }
}

impl Display for Provided {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let stream = &self.stream;
        write!(f, "{}: ", self.name())?;
        f.write_str(match (self.outcome, self.is_done) {
            (Outcome::Same, _) => "as it should be",
            (Outcome::Made, true) => "made",
            (Outcome::Made, false) => "to be made",
            (Outcome::Changed, true) => "changed",
            (Outcome::Changed, false) => "to be changed",
            (Outcome::Refused, _) => "NOT as it should be, and left as it is",
        })?;
        for difference in &self.differences {
            let Difference {
                setting,
                is,
                wanted,
                can_change,
            } = difference;
            write!(f, "\n  {setting}\n    - {}\n    + {wanted}", printable(is))?;
            if let (false, Some(source)) = (can_change, &self.source) {
                write!(
                    f,
                    "\n    no stream's {setting} can be changed: when {source} runs, delete the stream (`nats stream rm {stream}`) and provision again: its relay fills it from the outbox; or keep it as it is"
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_plain_name() {
        assert_eq!(source("order-lines_2"), Ok("order-lines_2".to_owned()));
        for bad in ["", "Orders", "a.b", "a b", "orders.>"] {
            assert!(source(bad).is_err(), "{bad}");
        }
    }
}
