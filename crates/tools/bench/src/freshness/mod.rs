//! Freshness: how long after its answer an order is visible in `purchases`.
//!
//! `users`, `products` and `orders` are processes. The projection of `purchases` runs in this
//! process, through the chassis as in the service. So [`Progress`] shows when a read would show the
//! order, without requests that would be a load themselves.

mod rival;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use headwater::projection::Progress;
use headwater::{Positions, Process, Service};
use prost::Message as _;
use purchases::{ABOUT, MIGRATIONS, Purchases};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::bench::Bench;
use crate::connection::Connection;
use crate::events::{self, FIRST_MS};
use crate::figure::{Figure, Table, Target};
use crate::load::{self, Load};
use crate::rounds::in_turns;
use crate::shop::{Ids, Shop};
use rival::Rival;

/// Orders per second.
const RATES: [u32; 2] = [100, 1_000];
/// Connections that take turns in sending, so that one that waits does not delay the next.
const CLIENTS: usize = 64;
/// Lines per order.
const LINES: usize = 3;
/// How long an order may take until it is visible.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// How long orders, or the baseline, took until they were visible.
#[derive(Debug)]
struct Seen {
    /// From the answer; for the baseline, from the end of its first commit.
    answered: Load,
    /// From sending; for the baseline, from the start of its first commit.
    sent: Load,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let shop = Shop::start(bench, &[]).await?;
    let ids = Arc::new(shop.fill(1_000, 1_000).await?);
    let end = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let progress = follow(&shop, end.clone(), &mut tasks).await?;
    let folder = bench.folder()?;
    let products = ids.products[..LINES].iter().copied();
    let event = events::placed(Uuid::now_v7(), ids.users[0], products, FIRST_MS);
    let event = event.encode_to_vec().into();
    let mut rival = Rival::start(folder.path(), &shop.stage.broker, event).await?;
    let measured = in_turns(bench.rounds, async |contender| {
        let began = Instant::now();
        let seen = match contender {
            2 => rival.run(RATES[0], bench.time).await?,
            ours => place(&shop, &ids, &progress, RATES[ours], bench.time).await?,
        };
        let (answered, sent) = seen.into_iter().unzip();
        Ok(Seen {
            answered: Load::new(answered, began.elapsed())?,
            sent: Load::new(sent, began.elapsed())?,
        })
    });
    let measured = measured.await?;
    end.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("run the projection")??;
    }
    Ok(figure(&measured))
}

/// Runs the projection of `purchases` as the service does, without its HTTP API.
async fn follow(
    shop: &Shop,
    end: CancellationToken,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<Progress> {
    let database = shop
        .stage
        .folder()
        .join("purchases.db")
        .display()
        .to_string();
    let nats = shop.stage.broker.url();
    let arguments = ["--database", &*database, "--nats-url", &nats];
    let config: headwater::Config = headwater::settings(&ABOUT, &arguments);
    let process = Process::on_free_ports(end).await.context("listen")?;
    let mut service = Service::start_read_store(ABOUT, MIGRATIONS, config, process).await?;
    let progress = service.project(Purchases).await?;
    let serving = service.serve(OpenApiRouter::new());
    tasks.spawn(Box::pin(async { Ok(serving.await?) }));
    progress
        .caught_up(&Positions::default(), SEEN_WITHIN)
        .await
        .context("apply the existing events")?;
    Ok(progress)
}

/// Places `rate` orders per second for `time`, on schedule even if earlier orders are late. Returns
/// how long each took until it was visible, after its answer and after it was sent.
async fn place(
    shop: &Shop,
    ids: &Arc<Ids>,
    progress: &Progress,
    rate: u32,
    time: Duration,
) -> anyhow::Result<Vec<(Duration, Duration)>> {
    let all = CLIENTS.min(rate as usize);
    let connections = Connection::several(shop.orders.address, all).await?;
    let started = Instant::now();
    let clients = connections.into_iter().enumerate();
    let clients = clients.map(|(client, mut connection)| {
        let (ids, progress) = (Arc::clone(ids), progress.clone());
        async move {
            let mut random = fastrand::Rng::with_seed(client as u64);
            let mut seen = Vec::new();
            for due in load::dues(client, all, rate, time) {
                let order = ids.any_order(&mut random, LINES);
                tokio::time::sleep_until((started + due).into()).await;
                let sent = Instant::now();
                let position = connection.post("/orders", &order).await?.position()?;
                let answered = Instant::now();
                let asked = Positions(BTreeMap::from([("orders".to_owned(), position)]));
                progress.wait(&asked, SEEN_WITHIN).await?;
                seen.push((answered.elapsed(), sent.elapsed()));
            }
            Ok(seen)
        }
    });
    Ok(load::together(clients).await?.concat())
}

fn figure(measured: &[Vec<Seen>; 3]) -> Figure {
    let answered =
        |seen: &[Seen]| -> Vec<Load> { seen.iter().map(|it| it.answered.clone()).collect() };
    let sent = |seen: &[Seen]| -> Vec<Load> { seen.iter().map(|it| it.sent.clone()).collect() };
    let bare = &measured[2];
    let mut figure = Figure::new(Table::of_loads("from … to where it is to be seen"));
    for (rate, ours) in RATES.into_iter().zip(measured) {
        let (answered, sent, theirs) = (answered(ours), sent(ours), sent(bare));
        figure
            .table
            .load(format!("answer to seen, {rate}/s"), &answered);
        figure.table.load(format!("sent to seen, {rate}/s"), &sent);
        for (percent, most) in [(50.0, 1.5), (99.0, 3.0)] {
            let p = |load: &Load| load.ms(percent);
            let name = format!("{rate}/s: p{percent} answer to seen / bare");
            figure.compare(name, (&answered, &theirs), p, Target::AtMost(most));
            let name = format!("{rate}/s: p{percent} sent to seen / bare");
            figure.compare(name, (&sent, &theirs), p, Target::None);
        }
    }
    figure
        .table
        .load("bare: commit, publish, commit", &sent(bare));
    figure.table.load("bare: publish, commit", &answered(bare));
    figure.note(format!("Answer: the client has the 201 of `POST /orders`, so it is committed. Seen: a read that begins now includes the order. Orders of {LINES} lines, sent on a fixed schedule (open loop)."));
    figure.note(format!("Bare: commit a row, publish it and await the acknowledgement, commit it in another file; one after the other, {} per second, without HTTP, relay or projection, on the same broker.", RATES[0]));
    figure
}
