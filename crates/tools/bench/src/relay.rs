//! Relay: an outbox full of events moves to its stream, against a bare client that publishes the
//! same bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{Client, HeaderMap, jetstream};
use broker::{Broker, Options};
use headwater::{Clock, Database, database, stream};
use rusqlite::Connection;

use crate::Bench;
use crate::figure::{Figure, Ratio, Table, Target};
use crate::load::{Load, count};
use crate::process::Process;
use crate::rounds::in_turns;
use crate::streams::{self, Published, Size};

/// The bare client's source: never one of the shop.
const RIVAL: &str = "rival";
/// How often the stream is looked at.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the relay may take.
const WITHIN: Duration = Duration::from_mins(5);

/// What publishing came to.
#[derive(Clone, Debug)]
struct Run {
    per_second: f64,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let events = bench.form.pick(500, 50_000, 200_000);
    let size = Size::of(events);
    let rows: Vec<_> = (0..events)
        .map(|number| streams::order(number, size))
        .collect();
    let runs = in_turns(bench.rounds, 3, async |contender| match contender {
        0 => relayed(bench, &rows).await,
        1 => in_batches(bench, &rows).await,
        _ => one_by_one(bench, &rows).await,
    });
    let [relay, batches, single] = <[_; 3]>::try_from(runs.await?).expect("three contenders");

    let mut table = Table::new("events", &[("per second", 0)]);
    let median = |runs: &[Run]| {
        let rates = runs.iter().map(|run| run.per_second).collect();
        Ratio::over("", rates, Target::None).median
    };
    table.row("relay", &[median(&relay)]);
    table.row("bare client, atomic batches of 1,000", &[median(&batches)]);
    table.row("bare client, one publish at a time", &[median(&single)]);
    let per_second = |run: &Run| run.per_second;
    Ok(Figure {
        table,
        ratios: vec![
            Ratio::of("relay / bare batches", (&relay, &batches), per_second, Target::AtLeast(0.85)),
            Ratio::of("relay / one at a time", (&relay, &single), per_second, Target::AtLeast(20.0)),
        ],
        notes: vec![
            format!("{events} orders' events, of one line each, are in the outbox before `orders` starts; from its start until the stream has all of them. The bare client has the same subjects, ids and payloads in its memory."),
            "No percentiles: each round is one long run. How long one event takes is the freshness.".to_owned(),
        ],
    })
}

/// `orders` starts with `rows` in its outbox.
async fn relayed(bench: &Bench, rows: &[Published]) -> anyhow::Result<Run> {
    let folder = bench.folder()?;
    let broker = start_broker(folder.path())?;
    let path = folder.path().join("orders.db");
    fill(&path, rows).await.context("fill the outbox")?;
    let path = path.display().to_string();
    let arguments = [
        "--database",
        &path,
        "--nats-url",
        &broker.url(),
        "--listen",
        "127.0.0.1:0",
    ];
    let jetstream = jetstream::new(async_nats::connect(broker.url()).await?);
    let began = Instant::now();
    let _orders = Process::start(
        &bench.binaries.of(orders::NAME)?,
        &arguments.map(str::to_owned),
        folder.path().join("orders.log"),
    )
    .await?;
    loop {
        if let Ok(stream) = jetstream.get_stream(stream::name(orders::NAME)).await
            && stream.cached_info().state.messages == rows.len() as u64
        {
            return Ok(Run::of(rows, began));
        }
        ensure!(
            began.elapsed() < WITHIN,
            "not all is there after {WITHIN:?}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// A bare client publishes `rows` in atomic batches, one after the other.
async fn in_batches(bench: &Bench, rows: &[Published]) -> anyhow::Result<Run> {
    let folder = bench.folder()?;
    let (_broker, client) = rival(folder.path()).await?;
    let events = rows.iter().map(|row| Published {
        subject: row.subject.replacen(orders::NAME, RIVAL, 1),
        ..row.clone()
    });
    let events: Vec<_> = events.collect();
    let began = Instant::now();
    streams::publish(&client, RIVAL, events.into_iter()).await?;
    Ok(Run::of(rows, began))
}

/// A bare client publishes as many of `rows` as it gets to, each when the one before is
/// acknowledged.
async fn one_by_one(bench: &Bench, rows: &[Published]) -> anyhow::Result<Run> {
    let folder = bench.folder()?;
    let (_broker, client) = rival(folder.path()).await?;
    let jetstream = jetstream::new(client);
    let began = Instant::now();
    let mut took = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{RIVAL}.bench.{}", index + 1));
        let subject = row.subject.replacen(orders::NAME, RIVAL, 1);
        let sent = Instant::now();
        jetstream
            .publish_with_headers(subject, headers, row.payload.clone())
            .await?
            .await?;
        took.push(sent.elapsed());
        if began.elapsed() > bench.time {
            break;
        }
    }
    let per_second = Load::new(took, began.elapsed())?.per_second;
    Ok(Run { per_second })
}

impl Run {
    fn of(rows: &[Published], began: Instant) -> Self {
        let per_second = count(rows.len()) / began.elapsed().as_secs_f64();
        Self { per_second }
    }
}

fn start_broker(folder: &Path) -> anyhow::Result<Broker> {
    let binary = broker::find(&|_| {}).context("find nats-server")?;
    Broker::start(&binary, Options::new(folder.join("broker"))).context("start nats-server")
}

/// A broker with the bare client's stream, and the client.
async fn rival(folder: &Path) -> anyhow::Result<(Broker, Client)> {
    let broker = start_broker(folder)?;
    let client = async_nats::connect(broker.url()).await?;
    streams::make(&client, RIVAL).await?;
    Ok((broker, client))
}

/// Makes the database of `orders`, with `rows` in its outbox.
async fn fill(path: &Path, rows: &[Published]) -> anyhow::Result<()> {
    let config = database::Config::at(path);
    let db = Database::open(orders::NAME, &config, orders::MIGRATIONS, Clock::system()).await?;
    db.close().await;
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    let mut insert = transaction.prepare(
        "INSERT INTO headwater_outbox (subject, key, payload, recorded_at) VALUES (?, ?, ?, ?)",
    )?;
    for row in rows {
        insert.execute((
            &row.subject,
            &row.key,
            &row.payload[..],
            1_700_000_000_000_i64,
        ))?;
    }
    drop(insert);
    transaction.commit()?;
    Ok(())
}
