//! Import: a large shop through the public APIs, against what the services take by themselves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Bench;
use crate::figure::{Figure, Ratio, Row, Table, Target};
use crate::load::count;
use crate::rounds::in_turns;
use crate::shop::{self, Ids, Shop, post_all};

/// Lines of an order.
const LINES: usize = 10;

/// The most rounds: each is long by itself.
const ROUNDS_MAX: usize = 3;

/// How much is brought in at once.
#[derive(Clone, Copy, Debug)]
struct Size {
    users: usize,
    products: usize,
    orders: usize,
}

/// How long each part took.
#[derive(Clone, Copy, Debug)]
struct Took {
    users: Duration,
    products: Duration,
    orders: Duration,
    whole: Duration,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let sizes = bench.form.pick(
        (50, 50, 50),
        (4_000, 2_000, 4_000),
        (20_000, 10_000, 50_000),
    );
    let (users, products, orders) = sizes;
    let size = Size {
        users,
        products,
        orders,
    };
    let shop = Shop::start(bench, &[]).await?;
    shop.fill(1, 1).await?;
    let program = bench.binaries.named("headwater")?;
    let mut batch = 0;
    let rounds = bench.rounds.min(ROUNDS_MAX);
    let measured = in_turns(rounds, 2, async |contender| {
        batch += 1;
        match contender {
            0 => import(&program, &shop, size, batch).await,
            _ => by_themselves(&shop, size).await,
        }
    });
    let [imported, alone] = &measured.await?[..] else {
        unreachable!("there are two contenders");
    };

    let columns = [
        ("users/s", 0),
        ("products/s", 0),
        ("orders/s", 0),
        ("all/s", 0),
    ];
    let mut table = Table::new("rows", &columns);
    table.rows.push(row("`headwater import`", size, imported));
    table.rows.push(row(
        "each service by itself, one after the other",
        size,
        alone,
    ));
    let whole = |took: &Took| took.whole.as_secs_f64();
    Ok(Figure {
        table,
        ratios: vec![Ratio::of("time by themselves / import", (alone, imported), whole, Target::None)],
        notes: vec![
            format!("{users} users, {products} products, {orders} orders of {LINES} lines, each time new ones; medians of {rounds} rounds."),
            "By themselves: 64 light connections that send ready-made bodies to one service at a time; the import reads files, makes ids, sends users and products at the same time, then orders.".to_owned(),
            "What limits it: a client that makes ids and uses a general HTTP library, the services and the broker share the cores.".to_owned(),
        ],
    })
}

/// Runs the operator's tool on new files.
async fn import(program: &Path, shop: &Shop, size: Size, batch: usize) -> anyhow::Result<Took> {
    let files = write_files(shop.folder(), size, batch)?;
    let mut command = Command::new(program);
    command
        .arg("import")
        .args(["--output", "json"])
        .stdin(Stdio::null());
    for (name, file) in ["users", "products", "orders"].iter().zip(files) {
        command.arg(format!("--{name}")).arg(file);
    }
    for (name, service) in [
        ("users", &shop.users),
        ("products", &shop.products),
        ("orders", &shop.orders),
    ] {
        command.args([format!("--{name}-url"), service.url()]);
    }
    let run = tokio::task::spawn_blocking(move || command.output());
    let done = run.await?.context("run headwater import")?;
    let problems = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.success(),
        "headwater import ended with {}: {problems}",
        done.status
    );
    let summary: Value = serde_json::from_slice(&done.stdout).context("read the summary")?;
    let seconds = |value: &Value| {
        let seconds = value
            .as_f64()
            .with_context(|| format!("no seconds in {summary}"))?;
        anyhow::Ok(Duration::from_secs_f64(seconds))
    };
    Ok(Took {
        users: seconds(&summary["users"]["seconds"])?,
        products: seconds(&summary["products"]["seconds"])?,
        orders: seconds(&summary["orders"]["seconds"])?,
        whole: seconds(&summary["total"]["seconds"])?,
    })
}

/// JSON Lines of users, products and orders that no batch before had.
fn write_files(folder: &Path, size: Size, batch: usize) -> anyhow::Result<[PathBuf; 3]> {
    let mut random = fastrand::Rng::with_seed(batch as u64);
    let (mut users, mut products, mut orders) = (String::new(), String::new(), String::new());
    for number in 0..size.users {
        let id = format!("{batch}-{number}");
        let line = json!({"id": id, "name": "Ada", "email": format!("{id}@example.com")});
        writeln!(users, "{line}")?;
    }
    for number in 0..size.products {
        let made = Uuid::now_v7();
        let (title, image) = (shop::title(made), shop::image(made));
        let line = json!({"id": format!("{batch}-{number}"), "title": title, "image": image});
        writeln!(products, "{line}")?;
    }
    for number in 0..size.orders {
        let user = format!("{batch}-{}", random.usize(..size.users));
        let lines = (0..LINES).map(|_| format!("{batch}-{}", random.usize(..size.products)));
        let lines: Vec<_> = lines.collect();
        let id = format!("{batch}-{number}");
        writeln!(
            orders,
            "{}",
            json!({"id": id, "user_id": user, "product_ids": lines})
        )?;
    }
    let write = |name: &str, text| -> anyhow::Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    };
    Ok([
        write("users.jsonl", users)?,
        write("products.jsonl", products)?,
        write("orders.jsonl", orders)?,
    ])
}

/// The same number of everything, to one service after the other.
async fn by_themselves(shop: &Shop, size: Size) -> anyhow::Result<Took> {
    let ids = |count| (0..count).map(|_| Uuid::now_v7()).collect::<Vec<_>>();
    let ids = Ids {
        users: ids(size.users),
        products: ids(size.products),
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
    let bodies = (0..size.orders)
        .map(|_| ids.any_order(&mut random, LINES))
        .collect();
    let known = format!("/orders?after=users:{users_at},products:{products_at}");
    let (orders, _) = timed(&shop.orders, &known, bodies).await?;
    Ok(Took {
        users,
        products,
        orders,
        whole: users + products + orders,
    })
}

fn row(name: &str, size: Size, rounds: &[Took]) -> Row {
    let rate = |number: usize, took: fn(&Took) -> Duration| {
        let mut took: Vec<_> = rounds.iter().map(took).collect();
        took.sort_unstable();
        Some(count(number) / took[took.len() / 2].as_secs_f64())
    };
    let all = size.users + size.products + size.orders;
    Row {
        name: name.to_owned(),
        cells: vec![
            rate(size.users, |took| took.users),
            rate(size.products, |took| took.products),
            rate(size.orders, |took| took.orders),
            rate(all, |took| took.whole),
        ],
    }
}
