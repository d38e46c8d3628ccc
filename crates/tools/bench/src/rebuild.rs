//! Rebuild: an empty `purchases` applies all events of a shop, compared with a plain client that
//! drains and decodes the same streams.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::{Client, jetstream};
use broker::{Broker, Options, Sync};
use futures_util::StreamExt as _;
use prost::Message;
use serde_json::Value;
use shop_events::{OrderPlaced, ProductCreated, UserRegistered};
use tempfile::TempDir;

use crate::bench::Bench;
use crate::figure::{Figure, Table, Target, median};
use crate::rounds::in_turns;
use crate::shop;
use crate::streams::{self, Size};

/// The pause between two checks of the progress of `purchases`.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the rebuild may take.
const WITHIN: Duration = Duration::from_mins(10);

/// The result of reading all events once.
#[derive(Clone, Copy, Debug)]
struct Run {
    per_second: f64,
    /// The highest memory, if it is a separate process.
    peak_mib: f64,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let sizes: &[usize] = bench
        .form
        .pick(&[1_000], &[200_000], &[1_000_000, 5_000_000]);
    let columns = [("events/s", 0), ("peak MiB", 1)];
    let mut figure = Figure::new(Table::new("streams", &columns));
    let mut medians = Vec::new();
    for orders in sizes {
        let size = Size::of(*orders);
        let (bare, ours) = compare(bench, size).await?;
        let (name, rate) = (size.events(), |run: &Run| run.per_second);
        let bare_rate = median(&bare, rate);
        let (our_rate, peak) = (median(&ours, rate), median(&ours, |run| run.peak_mib));
        let table = &mut figure.table;
        table.partial(
            format!("{name} events: bare drain"),
            &[Some(bare_rate), None],
        );
        table.row(format!("{name} events: `purchases`"), &[our_rate, peak]);
        medians.push((our_rate, peak));
        let name = format!("{name} events: rate / bare drain");
        figure.compare(name, (&ours, &bare), rate, Target::AtLeast(0.75));
    }
    if let [(rate, peak), (larger_rate, larger_peak)] = *medians {
        let flat = "memory, five times the events / once";
        let linear = "rate, five times the events / once";
        figure.ratio(flat, larger_peak / peak, Target::AtMost(1.2));
        figure.ratio(linear, larger_rate / rate, Target::AtLeast(0.8));
    }
    figure.note("From the start of the program without a store until all events are applied, each batch in a durable transaction. Ten orders per user, a hundred per product, one line each; users and products by chance.");
    figure.note("The bare drain: one client on a current-thread runtime, a pull consumer per stream without acknowledgements, every event decoded and dropped.");
    figure.note("No percentiles: each round is one long run.");
    Ok(figure)
}

/// The rounds of the plain client and of `purchases`.
async fn compare(bench: &Bench, size: Size) -> anyhow::Result<(Vec<Run>, Vec<Run>)> {
    let folder = bench.folder()?;
    let broker = filled(&folder, size).await?;
    let rounds = if size.orders > 1_000_000 {
        1
    } else {
        bench.rounds
    };
    let runs = in_turns(rounds, async |contender| {
        if contender == 0 {
            let url = broker.url();
            return tokio::task::spawn_blocking(move || drained(&url, size)).await?;
        }
        rebuilt(bench, &broker, size).await
    });
    let [bare, ours] = runs.await?;
    Ok((bare, ours))
}

/// A broker with the streams of a shop. It is filled without an fsync per batch, then restarted
/// with the usual settings.
async fn filled(folder: &TempDir, size: Size) -> anyhow::Result<Broker> {
    let options = |sync| Options {
        sync,
        ready_within: Duration::from_mins(1),
        ..Options::new(folder.path().join("broker"))
    };
    let mut filling = shop::start_broker(options(Sync::Default))?;
    let client = async_nats::connect(filling.url()).await?;
    streams::fill(&client, size)
        .await
        .context("fill the streams")?;
    filling.stop().context("stop nats-server")?;
    shop::start_broker(options(Sync::Always))
}

/// Reads and decodes all events.
fn drained(url: &str, size: Size) -> anyhow::Result<Run> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = async_nats::connect(url).await?;
        let began = Instant::now();
        tokio::try_join!(
            drain::<UserRegistered>(&client, "users", size.users),
            drain::<ProductCreated>(&client, "products", size.products),
            drain::<OrderPlaced>(&client, "orders", size.orders),
        )?;
        Ok(Run {
            per_second: size.rate(began.elapsed()),
            peak_mib: f64::NAN,
        })
    })
}

async fn drain<E: Message + Default>(
    client: &Client,
    source: &str,
    events: usize,
) -> anyhow::Result<()> {
    let jetstream = jetstream::new(client.clone());
    let stream = jetstream
        .get_stream(headwater::stream::name(source))
        .await?;
    let config = pull::Config {
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let mut messages = consumer
        .stream()
        .max_messages_per_batch(20_000)
        .messages()
        .await?;
    for _ in 0..events {
        let message = messages.next().await.context("the stream ended")??;
        E::decode(message.payload.clone())?;
    }
    Ok(())
}

/// Applies all events to a new store.
async fn rebuilt(bench: &Bench, broker: &Broker, size: Size) -> anyhow::Result<Run> {
    let folder = bench.folder()?;
    let client = async_nats::connect(broker.url()).await?;
    let program = bench.binaries.of("purchases")?;
    let began = Instant::now();
    let process = shop::start(&program, folder.path(), "purchases", broker, &[]).await?;
    while !is_there(&client, size).await? {
        ensure!(
            began.elapsed() < WITHIN,
            "not all events are applied after {WITHIN:?}"
        );
        tokio::time::sleep(PAUSE).await;
    }
    Ok(Run {
        per_second: size.rate(began.elapsed()),
        peak_mib: process.peak_mib()?,
    })
}

/// Whether `purchases` has applied all events.
async fn is_there(client: &Client, size: Size) -> anyhow::Result<bool> {
    let status = client.request("headwater.purchases.status", "".into());
    let Ok(answer) = status.await else {
        return Ok(false);
    };
    let status: Value = serde_json::from_slice(&answer.payload).context("read its status")?;
    let at = &status["projections"][0]["positions"];
    Ok(at["users"] == size.users && at["products"] == size.products && at["orders"] == size.orders)
}
