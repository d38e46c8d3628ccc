//! Reads: the cost of `purchases` compared with a plain join, from a large store, over HTTP.

pub(crate) mod bare;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::bench::Bench;
use crate::connection::Connection;
use crate::figure::{Figure, Table, Target};
use crate::load::{self, Load};
use crate::process::Process;
use crate::rounds::in_turns;
use crate::shop::Stage;
use crate::store::{self, Sequence, Size, Store};

/// Concurrent connections.
const CLIENTS: usize = 32;
/// The number of users whose answers are compared before the measurement.
const COMPARED: usize = 20;

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let stage = Stage::new(bench)?;
    let (tens, hundreds, products) = bench.form.pick(
        (500, 20, 1_000),
        (100_000, 2_000, 20_000),
        (980_000, 20_000, 100_000),
    );
    let size = Size {
        tens,
        hundreds,
        products,
        sequence: Sequence::UserByUser,
    };
    let store = store::fill(&stage.folder().join("purchases.db"), size).await?;
    let ours = stage.start("purchases", "purchases", &[]).await?;
    let rival = ["--rival".to_owned(), store.path.display().to_string()];
    let own = std::env::current_exe().context("find this program's binary")?;
    let bare = Process::start(&own, &rival, stage.folder().join("bare.log")).await?;
    expect_the_same(&ours, &bare, &store).await?;

    let paths = [paths(&store.tens), paths(&store.hundreds)];
    let constant = [
        constant(&ours, &paths[0]).await?,
        constant(&ours, &paths[1]).await?,
    ];
    let time = bench.time;
    let measured = in_turns(bench.rounds, async |contender| {
        let kind = contender % 2;
        match contender / 2 {
            0 => get(&ours, &paths[kind], time).await,
            1 => get(&bare, &paths[kind], time).await,
            _ => get(&bare, &constant[kind], time).await,
        }
    });
    Ok(figure(&measured.await?, size))
}

fn figure(measured: &[Vec<Load>; 6], size: Size) -> Figure {
    let mut figure = Figure::new(Table::of_loads("answers"));
    for (kind, products) in ["10 products", "100 products"].into_iter().enumerate() {
        let (ours, bare, constant) = (&measured[kind], &measured[kind + 2], &measured[kind + 4]);
        let table = &mut figure.table;
        table.load(format!("`purchases`, {products}"), ours);
        table.load(format!("bare join, {products}"), bare);
        table.load(format!("constant answer, {products}"), constant);
        let (rate, p99) = (|load: &Load| load.per_second, |load: &Load| load.ms(99.0));
        let mut compare = |name, theirs: &[Load], number: fn(&Load) -> f64, target| {
            figure.compare(
                format!("{products}: {name}"),
                (ours, theirs),
                number,
                target,
            );
        };
        compare("rate / bare join", bare, rate, Target::AtLeast(0.9));
        compare("p99 / bare join", bare, p99, Target::AtMost(1.2));
        compare("rate / constant answer", constant, rate, Target::None);
    }
    let (users, products, pairs) = (size.tens + size.hundreds, size.products, size.pairs());
    figure.note(format!(
        "{users} users, {products} products, {pairs} pairs; random users, {CLIENTS} connections."
    ));
    figure.note("The bare join runs under the same HTTP server, on four connections, with prepared statements. Its answers are identical byte for byte, including `as_of` and the snapshot.");
    figure.note("The constant answer has the same length and needs no database.");
    figure
}

/// Checks for some users that both give the same answer.
async fn expect_the_same(ours: &Process, bare: &Process, store: &Store) -> anyhow::Result<()> {
    let mut ours = Connection::open(ours.address).await?;
    let mut bare = Connection::open(bare.address).await?;
    for (users, products) in [(&store.tens, 10), (&store.hundreds, 100)] {
        for user in users.iter().take(COMPARED) {
            let path = format!("/users/{user}/purchases");
            let (ours, bare) = (ours.get(&path).await?, bare.get(&path).await?);
            ensure!(ours.body == bare.body, "the answers for {user} differ");
            let found = ours.json()?["purchases"].as_array().map_or(0, Vec::len);
            ensure!(found == products, "{user} has {found} products");
        }
    }
    Ok(())
}

/// The path of each user's purchases.
pub(crate) fn paths(users: &[Uuid]) -> Arc<[String]> {
    let path = |user: &Uuid| format!("/users/{user}/purchases");
    users.iter().map(path).collect()
}

/// The path of a constant answer as long as the first of `paths`.
async fn constant(ours: &Process, paths: &[String]) -> anyhow::Result<Arc<[String]>> {
    let mut connection = Connection::open(ours.address).await?;
    let length = connection.get(&paths[0]).await?.body.len();
    Ok(Arc::from([format!("/constant/{length}")]))
}

/// Closed loop: connections that each request random `paths`, one after the other.
pub(crate) async fn get(
    from: &Process,
    paths: &Arc<[String]>,
    time: Duration,
) -> anyhow::Result<Load> {
    load::closed(clients(from).await?, time, any_of(paths)).await
}

/// The same as an open loop of `per_second` requests per second.
pub(crate) async fn get_paced(
    from: &Process,
    paths: &Arc<[String]>,
    per_second: u32,
    time: Duration,
) -> anyhow::Result<Load> {
    load::paced(clients(from).await?, per_second, time, any_of(paths)).await
}

/// A connection and its random generator.
type Client = (Connection, fastrand::Rng);

async fn clients(to: &Process) -> anyhow::Result<Vec<Client>> {
    let connections = Connection::several(to.address, CLIENTS).await?.into_iter();
    Ok(connections
        .zip((0..).map(fastrand::Rng::with_seed))
        .collect())
}

/// Requests one of `paths`.
fn any_of(
    paths: &Arc<[String]>,
) -> impl Fn(Client) -> BoxFuture<'static, anyhow::Result<Client>> + Clone + Send + 'static {
    let paths = Arc::clone(paths);
    move |(mut connection, mut random)| {
        let (paths, chosen) = (Arc::clone(&paths), random.usize(..paths.len()));
        Box::pin(async move {
            connection.get(&paths[chosen]).await?;
            Ok((connection, random))
        })
    }
}
