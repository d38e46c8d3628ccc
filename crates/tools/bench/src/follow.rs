//! Follow: what open streams cost `purchases` in memory, and other clients in reads.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::setpriority_process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::bench::Bench;
use crate::connection::Connection;
use crate::figure::{Figure, Table, Target};
use crate::load::{self, Load, count};
use crate::process::Process;
use crate::reads::{get, paths};
use crate::shop::{Ids, Shop, order, post_all};

/// Products of a followed user.
const PRODUCTS: usize = 10;
/// Orders of followed users per second, with and without streams.
const ORDERS: u32 = 50;
/// What all streams may cost, in MiB.
const MEMORY_MIB: f64 = 64.0;
/// How long streams may take to be open.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// The `nice` value of the pages: real ones have their own cores.
const NICENESS: i32 = 19;
/// The first line of an event.
const EVENT: &[u8] = b"event: purchases\n";
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    headwater::http::raise_file_limit();
    let streams = bench.form.pick(50, 1_000, 1_000);
    let shop = Shop::start(bench, &[]).await?;
    let limits = [
        "--http-connections=2048",
        "--http-connections-per-address=0",
        "--http-streams=1024",
        "--http-streams-per-address=0",
    ];
    let purchases = shop.stage.start("purchases", "purchases", &limits).await?;
    let ids = Arc::new(shop.fill(streams, streams).await?);
    let mut random = fastrand::Rng::with_seed(1);
    let bodies = ids
        .users
        .iter()
        .map(|user| order(*user, &ids.any_products(&mut random, PRODUCTS)));
    let last = post_all(&shop.orders, "/orders", bodies.collect()).await?;
    let caught_up = format!("/users/{}/purchases?after=orders:{last}", ids.users[0]);
    let mut connection = Connection::open(purchases.address).await?;
    connection.get_within(&caught_up, OPEN_WITHIN).await?;

    let paths = paths(&ids.users);
    // The memory of the reads themselves is there before any stream.
    get(&purchases, &paths, bench.time).await?;
    let before = purchases.memory_mib()?;
    let (mut alone, mut followed, mut memory, mut events) = (Vec::new(), Vec::new(), before, 0);
    for _ in 0..bench.rounds {
        alone.push(read(bench, &shop, &purchases, &ids, &paths).await?);
        let pages = Pages::open(purchases.address, &ids.users).await?;
        let arrived = pages.events();
        followed.push(read(bench, &shop, &purchases, &ids, &paths).await?);
        memory = memory.max(purchases.memory_mib()?);
        events += pages.events() - arrived;
    }
    ensure!(events > 0, "no stream brought anything");

    let mut figure = Figure::new(Table::of_loads("reads"));
    figure.table.load("without streams".to_owned(), &alone);
    figure
        .table
        .load(format!("with {streams} streams"), &followed);
    figure.compare(
        "rate / without streams".to_owned(),
        (&followed, &alone),
        |load| load.per_second,
        Target::AtLeast(0.9),
    );
    let cost = (memory - before) / MEMORY_MIB;
    figure.ratio(
        format!("memory of the streams / {MEMORY_MIB} MiB"),
        cost,
        Target::AtMost(1.0),
    );
    figure.note(format!("{streams} pages of users with {PRODUCTS} products each follow; meanwhile these users place {ORDERS} orders per second, and 32 clients read what random ones of them ordered."));
    figure.note(format!("The streams brought {:.0} events per second. Memory: the highest resident memory of `purchases` with streams, less that before the first.", count(events) / (bench.time.as_secs_f64() * count(bench.rounds))));
    figure.note("Pages, readers and services share the cores.");
    Ok(figure)
}

/// The honest reads, while the followed users order.
async fn read(
    bench: &Bench,
    shop: &Shop,
    purchases: &Process,
    ids: &Arc<Ids>,
    paths: &Arc<[String]>,
) -> anyhow::Result<Load> {
    let orders = Connection::open(shop.orders.address).await?;
    let ids = Arc::clone(ids);
    let ordering = load::paced(
        vec![(orders, fastrand::Rng::with_seed(2))],
        ORDERS,
        bench.time,
        move |(mut orders, mut random)| {
            let order = ids.any_order(&mut random, 1);
            async move {
                orders.post("/orders", &order).await?;
                Ok((orders, random))
            }
        },
    );
    let (ordered, read) = tokio::join!(ordering, get(purchases, paths, bench.time));
    ordered.context("place orders")?;
    read
}

/// Pages that follow, until they are dropped: on a thread of their own.
struct Pages {
    events: Arc<AtomicUsize>,
    _end: DropGuard,
}

impl Pages {
    /// Opens a page for each of `users`; each has its first event.
    async fn open(address: SocketAddr, users: &[Uuid]) -> anyhow::Result<Self> {
        let (events, end) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
        let pages = Self {
            events: Arc::clone(&events),
            _end: end.clone().drop_guard(),
        };
        let count = users.len();
        let users = users.to_vec();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new().spawn(move || {
            let _ = setpriority_process(None, NICENESS);
            let follow = async {
                let follow = |user| follow(address, user, Arc::clone(&events));
                let all: JoinSet<_> = users.into_iter().map(follow).collect();
                all.join_all().await
            };
            runtime.block_on(end.run_until_cancelled(follow));
        })?;
        let opened = tokio::time::timeout(OPEN_WITHIN, async {
            while pages.events() < count {
                tokio::time::sleep(PAUSE).await;
            }
        });
        opened.await.context("open all streams")?;
        Ok(pages)
    }

    /// The events that have come so far.
    fn events(&self) -> usize {
        self.events.load(Ordering::Relaxed)
    }
}

/// Counts the events of a stream until it ends.
async fn follow(address: SocketAddr, user: Uuid, events: Arc<AtomicUsize>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "GET /users/{user}/purchases HTTP/1.1\r\nHost: localhost\r\n\
         Accept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::with_capacity(16 * 1024);
    while stream.read_buf(&mut bytes).await? > 0 {
        // A line of the stream; the rest of an event is JSON, in which this does not occur.
        while let Some(begin) = bytes.windows(EVENT.len()).position(|it| it == EVENT) {
            bytes.drain(..begin + EVENT.len());
            events.fetch_add(1, Ordering::Relaxed);
        }
        let done = bytes.len().saturating_sub(EVENT.len() - 1);
        bytes.drain(..done);
    }
    Ok(())
}
