//! Memory: the resident memory of each service, idle and under load.

use std::time::Duration;

use async_nats::jetstream;

use crate::bench::Bench;
use crate::connection::Connection;
use crate::figure::{Figure, Table, Target};
use crate::load::count;
use crate::process::Process;
use crate::reads::{get, paths};
use crate::shop::{Shop, post_all};
use crate::store;

/// How long a service does nothing before it counts as idle.
const IDLE: Duration = Duration::from_secs(1);
/// How long `purchases` may take until it has applied all orders.
const CAUGHT_UP_WITHIN: Duration = Duration::from_mins(5);
/// Lines per order.
const LINES: usize = 10;

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let (each, orders) = bench
        .form
        .pick((20, 50), (2_000, 10_000), (50_000, 200_000));
    let shop = Shop::start(bench, &[]).await?;
    let purchases = shop.stage.start("purchases", "purchases", &[]).await?;
    let services: [(&str, &Process); 4] = [
        ("users", &shop.users),
        ("products", &shop.products),
        ("orders", &shop.orders),
        ("purchases", &purchases),
    ];
    tokio::time::sleep(IDLE).await;
    let idle = services.map(|(_, process)| process.memory_mib());

    let ids = shop.fill(each, each).await?;
    let mut random = fastrand::Rng::with_seed(1);
    let bodies = (0..orders)
        .map(|_| ids.any_order(&mut random, LINES))
        .collect();
    let last = post_all(&shop.orders, "/orders", bodies).await?;
    let all_of_it = format!("/users/{}/purchases?after=orders:{last}", ids.users[0]);
    let mut connection = Connection::open(purchases.address).await?;
    connection.get_within(&all_of_it, CAUGHT_UP_WITHIN).await?;
    get(&purchases, &paths(&ids.users), bench.time).await?;
    let loaded = services.map(|(_, process)| process.memory_mib());

    let columns = [("idle MiB", 1), ("loaded MiB", 1), ("peak MiB", 1)];
    let mut figure = Figure::new(Table::new("service", &columns));
    for (((name, process), idle), loaded) in services.into_iter().zip(idle).zip(loaded) {
        let (idle, loaded, peak) = (idle?, loaded?, process.peak_mib()?);
        figure.table.row(name, &[idle, loaded, peak]);
        figure.ratio(format!("{name}: peak / idle"), peak / idle, Target::None);
    }
    figure.note(format!("Resident memory of the release binaries. Idle: a second after the start. Loaded: after {each} users, {each} products, {orders} orders of {LINES} lines by 64 clients, and reads by 32. Peak: the highest value of the process."));
    figure.note(disk(&shop, orders).await?);
    figure.note("No percentiles: memory is read once, not sampled.");
    Ok(figure)
}

/// The disk space of an order of [`LINES`] lines in `orders.db` and in the stream.
async fn disk(shop: &Shop, orders: usize) -> anyhow::Result<String> {
    let bytes = store::bytes(&shop.stage.folder().join("orders.db"))?;
    let jetstream = jetstream::new(async_nats::connect(shop.stage.broker.url()).await?);
    let stream = jetstream.get_stream("ORDERS").await?;
    let state = &stream.cached_info().state;
    Ok(format!(
        "On disk, an order takes {:.0} bytes of `orders.db`, including its event in the outbox, and {} bytes of the stream.",
        bytes / count(orders),
        state.bytes / state.messages.max(1),
    ))
}
