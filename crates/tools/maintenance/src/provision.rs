//! `headwater provision`: creates the broker objects that services need and may not create
//! themselves, and updates their settings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::builder::FalseyValueParser;
use client::{Common, Nats, Unreachable, complain};
use headwater::projection::Consumer;
use headwater::{schema, stream};
use survey::{Plan, Survey, plan, source};
use terminal::output::duration;
use terminal::{Exit, confirm};
use tokio::time::Instant;

use report::Report;
use wanted::Wanted;

mod report;
mod wanted;

/// The pause between two attempts to reach the broker.
const PAUSE: Duration = Duration::from_millis(250);

/// Create the streams, consumers and bucket that services need, and update their settings
///
/// For brokers where services may not do this themselves, as with the accounts of deploy/nats.
/// Consumers are created for the projections in the plan, and for those that a running service has
/// or that have a consumer already. For a new service, add it to the plan, or start it first: it
/// waits.
///
/// Limits, placement and other settings that no service requires stay unchanged, as do the messages
/// in streams. If a setting differs that JetStream cannot change, it is shown, and the stream stays
/// unchanged.
///
/// Exit codes: 0 all settings are right now; 1 other failure; 2 usage error, or a change needs
/// --yes; 3 something differs: with --dry-run what would be changed, without it what cannot be
/// changed; 4 the broker cannot be reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Sources whose streams and consumers to provision [default: those of the plan, all that have
    /// a stream or a relay, and the bucket]
    #[arg(value_name = "SOURCE", value_parser = source)]
    pub sources: Vec<String>,

    /// Only show what would be done
    #[arg(long, env = "HEADWATER_PROVISION_DRY_RUN", value_parser = FalseyValueParser::new())]
    pub dry_run: bool,

    /// Replicas of each stream [default: 1 for a new stream, otherwise unchanged]
    #[arg(long, value_name = "N", env = "HEADWATER_NATS_REPLICAS", value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: Option<u8>,

    /// Retry this long while the broker cannot be reached: `30s`
    #[arg(long, value_name = "DURATION", env = "HEADWATER_PROVISION_WAIT", value_parser = duration)]
    pub wait: Option<Duration>,

    /// Do not ask before changing existing objects
    #[arg(long, env = "HEADWATER_YES", value_parser = FalseyValueParser::new())]
    pub yes: bool,

    #[command(flatten)]
    pub plan: plan::Args,
}

/// Compares, asks, and makes the changes.
pub async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let plan = args.plan.load()?;
    let nats = connect(common, args.wait.unwrap_or_default()).await?;
    let all = wanted(&nats, &args, &plan).await?;
    if !args.dry_run {
        let before = Report::of(&all, args.dry_run, false);
        let changed = before.changed();
        if !changed.is_empty() {
            for line in before.differing() {
                complain(&line);
            }
            confirm(&format!("change {}", changed.join(", ")), args.yes)?;
        }
        for wanted in &all {
            wanted.carry_out(&nats).await?;
        }
    }
    let report = Report::of(&all, args.dry_run, !args.dry_run);
    common.print(&report)?;
    Ok(report.exit())
}

/// Connects; retries until `wait` is over while the broker cannot be reached.
async fn connect(common: &Common, wait: Duration) -> anyhow::Result<Nats> {
    let until = Instant::now() + wait;
    loop {
        let connected = common.connect().await;
        let is_away = matches!(
            connected,
            Err(client::Error::Unreachable(Unreachable::Broker { .. }))
        );
        if !is_away || Instant::now() >= until {
            return Ok(connected?);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What to do with the streams of the named sources, or of all known sources, and with the bucket.
async fn wanted(nats: &Nats, args: &Args, plan: &Plan) -> anyhow::Result<Vec<Wanted>> {
    let found = Survey::take(nats, plan).await?;
    found.brokers.expect_usable()?;
    let known = found.relays.iter().map(|relay| relay.source.clone());
    let sources: BTreeSet<String> = if args.sources.is_empty() {
        known.chain(plan.sources.iter().cloned()).collect()
    } else {
        args.sources.iter().cloned().collect()
    };
    if sources.is_empty() {
        complain("no source is known: name the sources or a plan (--plan), or start the services");
    }
    let readers = readers(&found, plan);
    let mut all = Vec::new();
    for source in sources {
        let settings = |replicas| stream::settings(&source, replicas);
        let mut wanted = Wanted::of(nats, &stream::name(&source), settings, args.replicas).await?;
        for projection in readers.get(&source).into_iter().flatten() {
            for consumer in Consumer::all(projection, &source) {
                wanted.add(nats, consumer).await?;
            }
        }
        wanted.source = Some(source);
        all.push(wanted);
    }
    if args.sources.is_empty() {
        let bucket = schema::bucket(1).name;
        all.push(Wanted::of(nats, &bucket, schema::bucket, args.replicas).await?);
    }
    Ok(all)
}

/// The projections of each source: those of the plan, those that run, and those with a consumer.
fn readers(found: &Survey, plan: &Plan) -> BTreeMap<String, BTreeSet<String>> {
    let mut readers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let planned = plan.projections.iter();
    let planned =
        planned.flat_map(|(name, sources)| sources.iter().map(move |source| (source, name)));
    let running = found.projections.iter().flat_map(|projection| {
        let sources = projection.sources.keys();
        sources.map(move |source| (source, &projection.name))
    });
    for (source, projection) in planned.chain(running).chain(found.topology.consumers()) {
        let of_source = readers.entry(source.clone()).or_default();
        of_source.insert(projection.clone());
    }
    readers
}
