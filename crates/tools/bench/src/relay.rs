//! Relay: an outbox full of events moves to its stream, compared with a plain client that publishes
//! the same bytes.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{Client, HeaderMap, jetstream};
use headwater::{Clock, Database, database, stream};
use rusqlite::Connection;

use crate::bench::Bench;
use crate::figure::{Figure, Table, Target, median};
use crate::load::count;
use crate::rounds::in_turns;
use crate::shop::Stage;
use crate::streams::{self, Published, Size};

/// The plain client's source: not one of the shop.
const RIVAL: &str = "rival";
/// The pause between two checks of the stream.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the relay may take.
const WITHIN: Duration = Duration::from_mins(5);

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let events = bench.form.pick(500, 50_000, 200_000);
    let size = Size::of(events);
    let rows: Vec<_> = (0..events)
        .map(|number| streams::order(number, size))
        .collect();
    let rates = in_turns(bench.rounds, async |contender| match contender {
        0 => relayed(bench, &rows).await,
        1 => in_batches(bench, &rows).await,
        _ => one_by_one(bench, &rows).await,
    });
    let [relay, batches, single] = &rates.await?;

    let mut figure = Figure::new(Table::new("events", &[("per second", 0)]));
    for (name, rates) in [
        ("relay", relay),
        ("bare client, atomic batches of 1,000", batches),
        ("bare client, one publish at a time", single),
    ] {
        figure.table.row(name, &[median(rates, |rate| *rate)]);
    }
    for (name, theirs, target) in [
        ("relay / bare batches", batches, Target::AtLeast(0.85)),
        ("relay / one at a time", single, Target::AtLeast(20.0)),
    ] {
        figure.compare(name, (relay, theirs), |rate| *rate, target);
    }
    figure.note(format!("The events of {events} orders, of one line each, are in the outbox before `orders` starts. Measured from its start until the stream has all of them. The bare client has the same subjects, ids and payloads in memory."));
    figure.note(
        "No percentiles: each round is one long run. For the time of one event, see freshness.",
    );
    Ok(figure)
}

/// Starts `orders` with `rows` in its outbox.
async fn relayed(bench: &Bench, rows: &[Published]) -> anyhow::Result<f64> {
    let stage = Stage::new(bench)?;
    let path = stage.folder().join("orders.db");
    fill(&path, rows).await.context("fill the outbox")?;
    let jetstream = jetstream::new(async_nats::connect(stage.broker.url()).await?);
    let began = Instant::now();
    let _orders = stage.start(orders::NAME, orders::NAME, &[]).await?;
    loop {
        if let Ok(stream) = jetstream.get_stream(stream::name(orders::NAME)).await
            && stream.cached_info().state.messages == rows.len() as u64
        {
            return Ok(per_second(rows.len(), began));
        }
        ensure!(
            began.elapsed() < WITHIN,
            "not all events are in the stream after {WITHIN:?}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// A plain client publishes `rows` in atomic batches, one after the other.
async fn in_batches(bench: &Bench, rows: &[Published]) -> anyhow::Result<f64> {
    let (_stage, client) = rival(bench).await?;
    let events = rows.iter().map(|row| Published {
        subject: row.subject.replacen(orders::NAME, RIVAL, 1),
        ..row.clone()
    });
    let events: Vec<_> = events.collect();
    let began = Instant::now();
    streams::publish(&client, RIVAL, events.into_iter()).await?;
    Ok(per_second(rows.len(), began))
}

/// A plain client publishes `rows` one at a time, each after the previous acknowledgement, for as
/// long as there is time.
async fn one_by_one(bench: &Bench, rows: &[Published]) -> anyhow::Result<f64> {
    let (_stage, client) = rival(bench).await?;
    let jetstream = jetstream::new(client);
    let (began, mut published) = (Instant::now(), 0);
    for row in rows {
        published += 1;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{RIVAL}.bench.{published}"));
        let subject = row.subject.replacen(orders::NAME, RIVAL, 1);
        jetstream
            .publish_with_headers(subject, headers, row.payload.clone())
            .await?
            .await?;
        if began.elapsed() > bench.time {
            break;
        }
    }
    Ok(per_second(published, began))
}

fn per_second(events: usize, began: Instant) -> f64 {
    count(events) / began.elapsed().as_secs_f64()
}

/// A broker with the plain client's stream, and the client.
async fn rival(bench: &Bench) -> anyhow::Result<(Stage, Client)> {
    let stage = Stage::new(bench)?;
    let client = async_nats::connect(stage.broker.url()).await?;
    streams::make(&client, RIVAL).await?;
    Ok((stage, client))
}

/// Creates the database of `orders`, with `rows` in its outbox.
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
        let (subject, key, payload) = (&row.subject, &row.key, &row.payload[..]);
        insert.execute((subject, key, payload, 1_700_000_000_000_i64))?;
    }
    drop(insert);
    transaction.commit()?;
    Ok(())
}
