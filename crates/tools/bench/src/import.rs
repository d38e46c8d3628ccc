//! Import: a large shop through the public APIs, compared with each service's own rate.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bench::Bench;
use crate::figure::{Figure, Table, Target, median};
use crate::load::count;
use crate::process::Process;
use crate::rounds::in_turns;
use crate::shop::{self, Ids, Shop, post_all};

/// Lines per order.
const LINES: usize = 10;

/// The highest number of rounds: each takes long.
const ROUNDS_MAX: usize = 3;

/// The services whose APIs receive the data, in their order.
const SOURCES: [&str; 3] = ["users", "products", "orders"];

/// The amount of data for each of [`SOURCES`].
type Size = [usize; 3];

/// The time for each part.
type Took = [Duration; 3];

/// The time for each part and in total, which for the import is less than the sum.
type Run = (Took, Duration);

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let size = bench.form.pick(
        [50, 50, 50],
        [4_000, 2_000, 4_000],
        [20_000, 10_000, 50_000],
    );
    let [users, products, orders] = size;
    let shop = Shop::start(bench, &[]).await?;
    shop.fill(1, 1).await?;
    let program = bench.binaries.named("shop-import")?;
    let mut batch = 0;
    let rounds = bench.rounds.min(ROUNDS_MAX);
    let measured = in_turns(rounds, async |contender| {
        batch += 1;
        match contender {
            0 => import(&program, &shop, size, batch).await,
            _ => by_themselves(&shop, size).await,
        }
    });
    let [imported, alone] = &measured.await?;

    let columns = ["users/s", "products/s", "orders/s", "all/s"].map(|name| (name, 0));
    let mut figure = Figure::new(Table::new("rows", &columns));
    let table = &mut figure.table;
    table.row("`shop-import`", &rates(size, imported));
    let by_themselves = "each service by itself, one after the other";
    table.row(by_themselves, &rates(size, alone));
    let (pair, whole) = ((&**alone, &**imported), |(_, whole): &Run| {
        whole.as_secs_f64()
    });
    figure.compare("time by themselves / import", pair, whole, Target::None);
    figure.note(format!("{users} users, {products} products, {orders} orders of {LINES} lines, new ones each time; medians of {rounds} rounds."));
    figure.note("By themselves: 64 light connections send prepared bodies to one service at a time. The import reads files, makes ids, sends users and products at the same time, then orders.");
    figure.note("The limit: the import, which makes ids and uses a general HTTP library, shares the cores with the services and the broker.");
    Ok(figure)
}

/// Users, products, orders, and the sum, per second.
fn rates(size: Size, runs: &[Run]) -> [f64; 4] {
    let rate = |number, took: &dyn Fn(&Run) -> Duration| {
        median(runs, |run| count(number) / took(run).as_secs_f64())
    };
    let [users, products, orders] = [0, 1, 2].map(|of| rate(size[of], &|(took, _)| took[of]));
    let all = rate(size.iter().sum(), &|(_, whole)| *whole);
    [users, products, orders, all]
}

/// Runs `shop-import` on new files.
async fn import(program: &Path, shop: &Shop, size: Size, batch: usize) -> anyhow::Result<Run> {
    let files = write_files(shop.stage.folder(), size, batch)?;
    let urls = [&shop.users, &shop.products, &shop.orders].map(Process::url);
    let mut command = Command::new(program);
    command.args(["--output", "json"]).stdin(Stdio::null());
    for ((name, file), url) in SOURCES.iter().zip(files).zip(urls) {
        command.arg(format!("--{name}")).arg(file);
        command.args([format!("--{name}-url"), url]);
    }
    let run = tokio::task::spawn_blocking(move || command.output());
    let done = run.await?.context("run shop-import")?;
    let problems = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "shop-import ended with {}: {problems}",
        done.status
    );
    let summary: Value = serde_json::from_slice(&done.stdout).context("read the summary")?;
    let took = |part: &str| {
        let seconds = summary[part]["seconds"].as_f64();
        let seconds = seconds.with_context(|| format!("no seconds of {part} in {summary}"))?;
        anyhow::Ok(Duration::from_secs_f64(seconds))
    };
    let [users, products, orders] = SOURCES.map(took);
    Ok(([users?, products?, orders?], took("total")?))
}

/// JSON Lines of users, products and orders that no earlier batch had.
fn write_files(folder: &Path, size: Size, batch: usize) -> anyhow::Result<[PathBuf; 3]> {
    let mut random = fastrand::Rng::with_seed(batch as u64);
    let id = |number: usize| format!("{batch}-{number}");
    let user = |number| {
        let id = id(number);
        json!({"id": id, "name": "Ada", "email": format!("{id}@example.com")})
    };
    let product = |number| {
        let made = Uuid::now_v7();
        json!({"id": id(number), "title": shop::title(made), "image": shop::image(made)})
    };
    let order = |number| {
        let user = id(random.usize(..size[0]));
        let lines: Vec<_> = (0..LINES).map(|_| id(random.usize(..size[1]))).collect();
        json!({"id": id(number), "user_id": user, "product_ids": lines})
    };
    Ok([
        write(folder.join("users.jsonl"), (0..size[0]).map(user))?,
        write(folder.join("products.jsonl"), (0..size[1]).map(product))?,
        write(folder.join("orders.jsonl"), (0..size[2]).map(order))?,
    ])
}

fn write(path: PathBuf, lines: impl Iterator<Item = Value>) -> anyhow::Result<PathBuf> {
    let lines: Vec<_> = lines.map(|line| line.to_string()).collect();
    std::fs::write(&path, lines.join("\n") + "\n")
        .with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// Sends the same data to one service after the other.
async fn by_themselves(shop: &Shop, size: Size) -> anyhow::Result<Run> {
    let ids = |count| (0..count).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    let ids = Ids {
        users: ids(size[0]),
        products: ids(size[1]),
    };
    let timed = async |service, path, bodies| {
        let started = Instant::now();
        let last = post_all(service, path, bodies).await?;
        anyhow::Ok((started.elapsed(), last))
    };
    let bodies = ids.users.iter().map(|id| shop::user(*id)).collect();
    let (users, users_at) = timed(&shop.users, "/users", bodies).await?;
    let bodies = ids.products.iter().map(|id| shop::product(*id)).collect();
    let (products, products_at) = timed(&shop.products, "/products", bodies).await?;
    let mut random = fastrand::Rng::with_seed(1);
    let orders = (0..size[2]).map(|_| ids.any_order(&mut random, LINES));
    let known = format!("/orders?after=users:{users_at},products:{products_at}");
    let (orders, _) = timed(&shop.orders, &known, orders.collect()).await?;
    Ok(([users, products, orders], users + products + orders))
}
