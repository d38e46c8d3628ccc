//! Orders: the cost of HTTP compared with the transaction alone, and the gain of group commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use headwater::database::{self, Tx, WriteError};
use headwater::idempotency::{Fingerprint, Key};
use headwater::{Clock, Database, Projection as _};
use orders::{KnownIds, MIGRATIONS, NAME, PlaceOrder};

use crate::bench::Bench;
use crate::connection::Connection;
use crate::events::{self, FIRST_MS, envelope};
use crate::figure::{Figure, Table, Target};
use crate::load::{self, Load};
use crate::rounds::in_turns;
use crate::shop::{Ids, Shop};

/// Concurrent clients.
const CLIENTS: usize = 64;
/// Lines per order.
const LINES: usize = 3;
/// How long the relay may take to publish the events of a load.
const DRAINED_WITHIN: Duration = Duration::from_mins(1);

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let (users, products) = bench.form.pick((20, 20), (1_000, 1_000), (10_000, 10_000));
    let grouped = Shop::start(bench, &[]).await?;
    let ids = Arc::new(grouped.fill(users, products).await?);
    let single = Shop::start(bench, &["--database-group", "1"]).await?;
    let single_ids = Arc::new(single.fill(users, products).await?);
    let folder = bench.folder()?;
    let alone = knowing(&ids, &database::Config::at(folder.path().join("orders.db"))).await?;

    let time = bench.time;
    let measured = in_turns(bench.rounds, async |contender| match contender {
        0 => over_http(&grouped, &ids, CLIENTS, time).await,
        1 => writer_alone(&alone, &ids, time).await,
        2 => over_http(&single, &single_ids, CLIENTS, time).await,
        _ => over_http(&grouped, &ids, 1, time).await,
    });
    let [http, writer, one_each, lone] = &measured.await?;
    alone.close().await;

    let mut figure = Figure::new(Table::of_loads("orders"));
    let table = &mut figure.table;
    table.load("POST /orders, 64 clients", http);
    table.load("the transaction alone, 64 tasks", writer);
    table.load("POST /orders, 64 clients, a commit each", one_each);
    table.load("POST /orders, 1 client", lone);
    for (name, theirs, target) in [
        ("rate / the transaction alone", writer, Target::AtLeast(0.5)),
        ("rate / a commit each", one_each, Target::AtLeast(10.0)),
        ("rate / 1 client", lone, Target::None),
    ] {
        figure.compare(name, (http, theirs), |load| load.per_second, target);
    }
    figure.note(format!("Orders of {LINES} lines, for {users} users and {products} products; each answered after its fsync."));
    figure.note("Over HTTP, the relay publishes meanwhile. The transaction alone is that of `POST /orders`, sent to `Database::write`, without relay and broker.");
    figure.note("A commit each: `--database-group 1`.");
    Ok(figure)
}

/// Runs clients that each place one order after the other. Then waits until everything is
/// published, so that the relay does not disturb the next measurement.
async fn over_http(
    shop: &Shop,
    ids: &Arc<Ids>,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Load> {
    let connections = Connection::several(shop.orders.address, clients).await?;
    let clients = connections.into_iter().zip(seeds()).collect();
    let load = load::closed(clients, time, {
        let ids = Arc::clone(ids);
        move |(mut connection, mut random)| {
            let order = ids.any_order(&mut random, LINES);
            async move {
                connection.post("/orders", &order).await?;
                Ok((connection, random))
            }
        }
    });
    let load = load.await?;
    drained(shop, ids).await?;
    Ok(load)
}

/// Places another order, and waits until it is in the stream.
async fn drained(shop: &Shop, ids: &Ids) -> anyhow::Result<()> {
    let order = ids.any_order(&mut fastrand::Rng::with_seed(0), LINES);
    let mut connection = Connection::open(shop.orders.address).await?;
    let last = connection.post("/orders", &order).await?.position()?;
    let client = async_nats::connect(shop.stage.broker.url()).await?;
    let jetstream = async_nats::jetstream::new(client);
    let mut stream = jetstream.get_stream("ORDERS").await?;
    let began = Instant::now();
    while stream.info().await?.state.last_sequence < last {
        ensure!(
            began.elapsed() < DRAINED_WITHIN,
            "the relay is behind by more than {DRAINED_WITHIN:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Runs tasks that each execute the transaction of `POST /orders`, one after the other.
async fn writer_alone(db: &Database, ids: &Arc<Ids>, time: Duration) -> anyhow::Result<Load> {
    let clients = seeds().take(CLIENTS).collect();
    let load = load::closed(clients, time, {
        let (db, ids) = (db.clone(), Arc::clone(ids));
        move |mut random: fastrand::Rng| {
            let (db, order) = (db.clone(), ids.any_order(&mut random, LINES));
            async move {
                let order: PlaceOrder = serde_json::from_str(&order)?;
                let (scope, id) = ("POST /orders", db.clock().new_id());
                let key = Key { scope, text: None };
                let fingerprint = Fingerprint::of(&order);
                let save = move |tx: &Tx| orders::save(tx, &key, &fingerprint, id, &order);
                let written = db.write(save).await;
                written.map_err(|error| anyhow::anyhow!("{error:?}"))?;
                Ok(random)
            }
        }
    });
    load.await
}

/// A database of `orders` that knows `ids`.
async fn knowing(ids: &Ids, config: &database::Config) -> anyhow::Result<Database> {
    let db = Database::open(NAME, config, MIGRATIONS, Clock::system()).await?;
    let registered = ids.users.iter().map(|id| events::registered(*id, FIRST_MS));
    let registered = registered.map(|it| envelope("users", &it));
    let created = ids.products.iter().map(|id| events::created(*id));
    let created = created.map(|it| envelope("products", &it));
    let events: Vec<_> = registered.chain(created).collect();
    let written = db.write(move |tx| KnownIds.apply(tx, &events)).await;
    written.map_err(|error: WriteError<_>| anyhow::anyhow!("{error:?}"))?;
    Ok(db)
}

/// A random generator for each client, the same in every run.
fn seeds() -> impl Iterator<Item = fastrand::Rng> {
    (0..).map(fastrand::Rng::with_seed)
}
