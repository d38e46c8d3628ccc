//! Scaling: the cost of an answer and of an event as the read store grows ten and a hundred times.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::bench::Bench;
use crate::events;
use crate::figure::{Figure, Table, Target};
use crate::load::{Load, count};
use crate::reads::{get, paths};
use crate::shop::Stage;
use crate::store::{self, Sequence, Size, Store};

/// Products per user, and lines per order.
const LINES: usize = 10;
/// Events per transaction when many are applied at once.
const BATCH: usize = 5_000;

/// The result for one size.
#[derive(Debug)]
struct Sized {
    mib: f64,
    answers: Load,
    /// Events that arrive one at a time, each in a durable transaction.
    alone: Load,
    /// Events per second when thousands are applied at once.
    together: f64,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let once = bench.form.pick(20, 2_000, 10_000);
    let columns = [
        ("MiB", 0),
        ("answers/s", 0),
        ("p50 ms", 2),
        ("p99 ms", 2),
        ("one event p50 ms", 2),
        ("p99 ms", 2),
        ("events/s, many", 0),
    ];
    let mut figure = Figure::new(Table::new("pairs in the store", &columns));
    let mut sizes = Vec::new();
    for times in [1, 10, 100] {
        let size = Size {
            tens: once * times,
            hundreds: 0,
            products: (once * times / 10).max(100),
            sequence: Sequence::ByChance,
        };
        let it = of(bench, size).await?;
        let [rate, p50, p99, _] = it.answers.cells();
        let [_, alone_p50, alone_p99, _] = it.alone.cells();
        let cells = [it.mib, rate, p50, p99, alone_p50, alone_p99, it.together];
        figure.table.row(size.pairs().to_string(), &cells);
        sizes.push(it);
    }
    let mut ratio = |name: &str, number: fn(&Sized) -> f64| {
        let ratio = number(&sizes[2]) / number(&sizes[0]);
        figure.ratio(format!("100 times the data: {name}"), ratio, Target::None);
    };
    ratio("answers per second", |it| it.answers.per_second);
    ratio("p50 of an event alone", |it| it.alone.ms(50.0));
    ratio("events per second, many at once", |it| it.together);
    figure.note(format!("Users who ordered {LINES} products each, a tenth as many products as users; orders by chance. Answers over HTTP, for random users, 32 connections."));
    figure.note(format!("One event: an order of {LINES} lines, of a random user, alone in a durable transaction. Many: {BATCH} orders in one transaction."));
    figure.note("The store is in the file system's cache at every size.");
    Ok(figure)
}

async fn of(bench: &Bench, size: Size) -> anyhow::Result<Sized> {
    let stage = Stage::new(bench)?;
    let store = store::fill(&stage.folder().join("purchases.db"), size).await?;
    let service = stage.start("purchases", "purchases", &[]).await?;
    let paths = paths(&store.tens);
    get(&service, &paths, bench.time / 4).await?;
    let answers = get(&service, &paths, bench.time).await?;
    drop(service);
    let (alone, together) = apply(&store, size, bench.time).await?;
    Ok(Sized {
        mib: store::bytes(&store.path)? / f64::from(1 << 20),
        answers,
        alone,
        together,
    })
}

/// Applies orders for `time`, one at a time, and for as long in large batches.
async fn apply(store: &Store, size: Size, time: Duration) -> anyhow::Result<(Load, f64)> {
    let db = store::open(&store.path).await?;
    let products = store::products(&store.path)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut any = || {
        let user = store.tens[random.usize(..size.tens)];
        let lines = (0..LINES).map(|_| products[random.usize(..size.products)]);
        let placed = events::placed(Uuid::now_v7(), user, lines, 1_800_000_000_000);
        events::envelope("orders", &placed)
    };
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let events = vec![any()];
        let sent = Instant::now();
        store::apply(&db, events).await?;
        took.push(sent.elapsed());
    }
    let alone = Load::new(took, began.elapsed())?;
    let (mut spent, mut applied) = (Duration::ZERO, 0);
    while spent < time {
        let events: Vec<_> = (0..BATCH).map(|_| any()).collect();
        let began = Instant::now();
        store::apply(&db, events).await?;
        spent += began.elapsed();
        applied += BATCH;
    }
    db.close().await;
    Ok((alone, count(applied) / spent.as_secs_f64()))
}
