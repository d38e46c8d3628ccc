//! Scaling: what an answer and an event cost as the read store grows ten and a hundred times.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use headwater::database::{self, WriteError};
use headwater::{Clock, Database, Envelope, Projection as _};
use purchases::Purchases;
use shop_events::OrderPlaced;
use uuid::Uuid;

use crate::figure::{Figure, Ratio, Table, Target};
use crate::load::{Load, count};
use crate::reads::{get, paths};
use crate::store::{self, Sequence, Size, Store, envelope};
use crate::{Bench, shop};

/// Products of a user, and lines of an order.
const LINES: usize = 10;
/// Events in one transaction where many are applied at once.
const BATCH: usize = 5_000;

/// What one size came to.
#[derive(Debug)]
struct Sized {
    mib: f64,
    answers: Load,
    /// Events that come one at a time, each in a durable transaction.
    alone: Load,
    /// Events a second where thousands are applied at once.
    together: f64,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let once = bench.form.pick(20, 2_000, 10_000);
    let mut table = Table::new(
        "pairs in the store",
        &[
            ("MiB", 0),
            ("answers/s", 0),
            ("p50 ms", 2),
            ("p99 ms", 2),
            ("one event p50 ms", 2),
            ("p99 ms", 2),
            ("events/s, many", 0),
        ],
    );
    let mut sizes = Vec::new();
    for times in [1, 10, 100] {
        let size = Size {
            tens: once * times,
            hundreds: 0,
            products: (once * times / 10).max(100),
            sequence: Sequence::ByChance,
        };
        let measured = of(bench, size).await?;
        let Sized {
            mib,
            answers,
            alone,
            together,
        } = &measured;
        let cells = [
            *mib,
            answers.per_second,
            answers.ms(50.0),
            answers.ms(99.0),
            alone.ms(50.0),
            alone.ms(99.0),
            *together,
        ];
        table.row(size.pairs().to_string(), &cells);
        sizes.push(measured);
    }
    let ratio = |name: &str, number: fn(&Sized) -> f64| {
        Ratio::over(
            name,
            vec![number(&sizes[2]) / number(&sizes[0])],
            Target::None,
        )
    };
    Ok(Figure {
        ratios: vec![
            ratio("100 times the data: answers a second", |it| it.answers.per_second),
            ratio("100 times the data: p50 of an event alone", |it| it.alone.ms(50.0)),
            ratio("100 times the data: events a second, many at once", |it| it.together),
        ],
        table,
        notes: vec![
            format!("Users who ordered {LINES} products each, a tenth as many products as users; orders by chance. Answers over HTTP, of any user, 32 connections."),
            format!("One event: an order of {LINES} lines, of any user, alone in a durable transaction. Many: {BATCH} of them in one."),
            "The store is in the file system's cache, which this machine has room for at every size.".to_owned(),
        ],
    })
}

async fn of(bench: &Bench, size: Size) -> anyhow::Result<Sized> {
    let folder = bench.folder()?;
    let store = store::fill(&folder.path().join("purchases.db"), size).await?;
    let broker = shop::start_broker(folder.path())?;
    let (binaries, at) = (&bench.binaries, folder.path());
    let service = shop::start(binaries, at, &broker, "purchases", "purchases", &[]).await?;
    let paths = paths(&store.tens);
    get(&service, &paths, bench.time / 4).await?;
    let answers = get(&service, &paths, bench.time).await?;
    drop(service);
    let (alone, together) = apply(&store, size, bench.time).await?;
    Ok(Sized {
        mib: mib(&store.path)?,
        answers,
        alone,
        together,
    })
}

/// Lets the projection apply orders for `time`, one at a time, and for as long in large batches.
async fn apply(store: &Store, size: Size, time: Duration) -> anyhow::Result<(Load, f64)> {
    let config = database::Config::at(&store.path);
    let name = purchases::NAME;
    let db = Database::open(name, &config, purchases::MIGRATIONS, Clock::system()).await?;
    let products = store::products(&store.path)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut any = || {
        let lines = (0..LINES).map(|_| products[random.usize(..size.products)].to_string());
        let lines = lines.collect();
        any_order(store.tens[random.usize(..size.tens)], lines)
    };
    let (began, mut took) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        let events = vec![any()];
        let sent = Instant::now();
        write(&db, events).await?;
        took.push(sent.elapsed());
    }
    let alone = Load::new(took, began.elapsed())?;
    let (mut spent, mut applied) = (Duration::ZERO, 0);
    while spent < time {
        let events: Vec<_> = (0..BATCH).map(|_| any()).collect();
        let began = Instant::now();
        write(&db, events).await?;
        spent += began.elapsed();
        applied += BATCH;
    }
    db.close().await;
    Ok((alone, count(applied) / spent.as_secs_f64()))
}

fn any_order(user: Uuid, product_ids: Vec<String>) -> Envelope {
    let one = OrderPlaced {
        order_id: Uuid::now_v7().to_string(),
        user_id: user.to_string(),
        product_ids,
        placed_at: Some(shop_events::timestamp(1_800_000_000_000)),
    };
    envelope("orders", &one)
}

async fn write(db: &Database, events: Vec<Envelope>) -> anyhow::Result<()> {
    let written = db.write(move |tx| Purchases.apply(tx, &events)).await;
    written.map_err(|error: WriteError<_>| anyhow!("apply: {error:?}"))?;
    Ok(())
}

fn mib(path: &Path) -> anyhow::Result<f64> {
    let sql = "SELECT page_count * page_size / 1048576.0 FROM pragma_page_count, pragma_page_size";
    Ok(rusqlite::Connection::open(path)?.query_row(sql, [], |row| row.get(0))?)
}
