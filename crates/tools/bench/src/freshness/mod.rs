//! Freshness: how long after its answer an order is to be seen in `purchases`.
//!
//! `users`, `products` and `orders` are processes; the projection of `purchases` runs in this one,
//! through the chassis as in the service, so that the moment is seen from which a read would show
//! the order ([`Progress`]), and asking for it is no load of its own.

mod rival;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use clap::Parser as _;
use headwater::http::Listeners;
use headwater::projection::Progress;
use headwater::{Positions, Service};
use purchases::{Config, MIGRATIONS, NAME, Purchases};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Bench;
use crate::connection::Connection;
use crate::figure::{Figure, Ratio, Table, Target};
use crate::load::Load;
use crate::rounds::in_turns;
use crate::shop::{Ids, Shop};
use rival::Rival;

/// Orders a second.
const RATES: [u32; 2] = [100, 1_000];
/// Connections that take turns in sending, so that one that waits does not hold up the next.
const CLIENTS: u32 = 64;
/// Lines of an order.
const LINES: usize = 3;
/// How long an order may take to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// What orders, or their rival, took until they were to be seen.
#[derive(Debug)]
struct Seen {
    /// From the answer; of the rival, from the end of its first commit.
    answered: Load,
    /// From when it was sent; of the rival, from the beginning of its first commit.
    sent: Load,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let shop = Shop::start(bench, &[]).await?;
    let ids = Arc::new(shop.fill(1_000, 1_000).await?);
    let end = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let progress = follow(&shop, end.clone(), &mut tasks).await?;
    let folder = bench.folder()?;
    let mut rival = Rival::start(folder.path(), &shop.broker, &ids).await?;
    let measured = in_turns(bench.rounds, 3, async |contender| match contender {
        2 => rival.run(RATES[0], bench.time).await,
        ours => place(&shop, &ids, &progress, RATES[ours], bench.time).await,
    });
    let measured = measured.await?;
    end.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("run the projection")??;
    }
    Ok(figure(&measured))
}

/// Runs the projection of `purchases`, as the service does, without its HTTP API.
async fn follow(
    shop: &Shop,
    end: CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Progress> {
    let database = shop.folder().join("purchases.db").display().to_string();
    let nats = shop.broker.url();
    let config = Config::parse_from(["bench", "--database", &database, "--nats-url", &nats]);
    let mut service = Service::start_copy(NAME, MIGRATIONS, config.service, end).await?;
    let progress = service.project(Purchases).await?;
    let listeners = Listeners::on_free_ports().await.context("listen")?;
    tasks.spawn(Box::pin(service.serve(listeners, Router::new())));
    progress
        .whole(&Positions::default(), SEEN_WITHIN)
        .await
        .context("fold what is there")?;
    Ok(progress)
}

/// Places `rate` orders a second for `time`, each when its time has come, whatever became of the
/// ones before; notes when each was answered and when it was to be seen.
async fn place(
    shop: &Shop,
    ids: &Arc<Ids>,
    progress: &Progress,
    rate: u32,
    time: Duration,
) -> anyhow::Result<Seen> {
    let clients = CLIENTS.min(rate);
    let connections = Connection::several(shop.orders.address, clients as usize).await?;
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for (mut connection, client) in connections.into_iter().zip(0_u32..) {
        let (ids, progress) = (Arc::clone(ids), progress.clone());
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(client.into());
            let mut seen = Vec::new();
            for turn in (client..).step_by(clients as usize) {
                let due = started + Duration::from_secs(turn.into()) / rate;
                if due >= started + time {
                    break;
                }
                let order = ids.any_order(&mut random, LINES);
                tokio::time::sleep_until(due.into()).await;
                let sent = Instant::now();
                let position = connection.post("/orders", &order).await?.position()?;
                let answered = Instant::now();
                let asked = Positions(BTreeMap::from([("orders".to_owned(), position)]));
                progress.wait(&asked, SEEN_WITHIN).await?;
                seen.push((answered.elapsed(), sent.elapsed()));
            }
            anyhow::Ok(seen)
        });
    }
    let mut all = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        all.extend(ended.context("run a client")??);
    }
    Seen::new(all, started.elapsed())
}

impl Seen {
    fn new(all: Vec<(Duration, Duration)>, elapsed: Duration) -> anyhow::Result<Self> {
        let (answered, sent) = all.into_iter().unzip();
        Ok(Self {
            answered: Load::new(answered, elapsed)?,
            sent: Load::new(sent, elapsed)?,
        })
    }
}

fn figure(measured: &[Vec<Seen>]) -> Figure {
    let answered = |seen: &Vec<Seen>| {
        seen.iter()
            .map(|it| it.answered.clone())
            .collect::<Vec<_>>()
    };
    let sent = |seen: &Vec<Seen>| seen.iter().map(|it| it.sent.clone()).collect::<Vec<_>>();
    let bare = &measured[2];
    let mut table = Table::of_loads("from … to where it is to be seen");
    let mut ratios = Vec::new();
    for (rate, ours) in RATES.into_iter().zip(measured) {
        table.load(format!("answer to seen, {rate}/s"), &answered(ours));
        table.load(format!("sent to seen, {rate}/s"), &sent(ours));
        for (percent, most) in [(50.0, 1.5), (99.0, 3.0)] {
            let (theirs, target) = (sent(bare), Target::AtMost(most));
            let mut ratio = |name: &str, loads: &[Load], target| {
                let name = format!("{rate}/s: p{percent} {name}");
                let number = |load: &Load| load.ms(percent);
                ratios.push(Ratio::of(&name, (loads, &theirs), number, target));
            };
            ratio("answer to seen / bare", &answered(ours), target);
            ratio("sent to seen / bare", &sent(ours), Target::None);
        }
    }
    table.load("bare: commit, publish, commit", &sent(bare));
    table.load("bare: publish, commit", &answered(bare));
    Figure {
        table,
        ratios,
        notes: vec![
            format!(
                "Answer: the client has the 201 of `POST /orders`, so it is committed. Seen: a read that begins now has the order in it. Orders of {LINES} lines, each sent when its time has come."
            ),
            format!(
                "Bare: commit a row, publish it and await the acknowledgement, commit it in another file; one after the other, {} a second, without HTTP, relay or projection, on the same broker.",
                RATES[0]
            ),
        ],
    }
}
