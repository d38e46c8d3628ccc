//! Styles: the cost of the same request in each of the three styles, on the same data and load.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use uuid::Uuid;

use crate::bench::Bench;
use crate::connection::Connection;
use crate::figure::{Figure, Table, Target};
use crate::load::{self, Load};
use crate::process::Process;
use crate::reads::{get, get_paced, paths};
use crate::rounds::in_turns;
use crate::shop::{Ids, Shop, order, post_all};
use crate::store;

/// The styles, ours first.
const STYLES: [&str; 3] = ["replica", "composition", "request-reply"];
/// Lines per order.
const LINES: usize = 10;
/// How long a style may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The counter of a style's requests to other services.
const COUNTER: &str = "purchases_requests_total";

/// Requests per second of a light load, at which requests do not delay each other.
const LIGHT: u32 = 250;
/// A heavy load is this share of the slowest style's maximum, so that all styles can bear it.
const HEAVY: f64 = 0.9;

/// The result of one style at the loads that are the same for all, and its requests to other
/// services.
#[derive(Debug)]
struct Asked {
    light: Load,
    heavy: Load,
    /// Per answer.
    questions: f64,
}

pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<Figure> {
    let (tens, hundreds) = bench.form.pick((20, 5), (1_000, 100), (5_000, 500));
    let shop = Shop::start(bench, &[]).await?;
    let ids = shop.fill(tens + hundreds, tens.max(100)).await?;
    let (ten, hundred) = ids.users.split_at(tens);
    let last = place_orders(&shop, &ids, ten, hundred).await?;
    let mut processes = Vec::new();
    for style in STYLES {
        let process = start(&shop, style).await?;
        expect_all(&process, style, ten[0], last).await?;
        processes.push(process);
    }
    let paths = [paths(ten), paths(hundred)];
    let time = bench.time;
    let most = in_turns(bench.rounds, async |contender| {
        get(&processes[contender / 2], &paths[contender % 2], time).await
    });
    let most: [_; 6] = most.await?;
    let heavy = [heavy(&most, 0), heavy(&most, 1)];
    let asked = in_turns(bench.rounds, async |contender| {
        let (process, paths) = (&processes[contender / 2], &paths[contender % 2]);
        let before = questions(process).await?;
        let light = get_paced(process, paths, LIGHT, time).await?;
        let heavy = get_paced(process, paths, heavy[contender % 2], time).await?;
        let asked = questions(process).await? - before;
        Ok(Asked {
            questions: asked / load::count(light.took.len() + heavy.took.len()),
            light,
            heavy,
        })
    });
    let asked: [_; 6] = asked.await?;
    let mut figure = figure(&most, &asked);
    let [heavy_10, heavy_100] = heavy;
    figure.note(format!("{tens} users who ordered 10 products, {hundreds} who ordered 100; random users, 32 connections; all processes on this machine. Light: {LIGHT} requests per second; heavy: {heavy_10} and {heavy_100}, nine tenths of the slowest style's maximum; both on a fixed schedule (open loop). At most: each request is sent after the previous answer (closed loop)."));
    let kib = (store::bytes(&shop.stage.folder().join("replica.db"))? / 1024.0).floor();
    figure.note(format!("Questions: requests to other services per answer. The replica stores {kib:.0} KiB; the others store nothing."));
    Ok(figure)
}

/// A load that the slowest style bears, for users who ordered 10 products (`kind` 0) or 100.
fn heavy(most: &[Vec<Load>], kind: usize) -> u32 {
    let rates = most.iter().skip(kind).step_by(2);
    let slowest = rates
        .map(|rounds| Load::of_all(rounds).per_second)
        .fold(f64::INFINITY, f64::min);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate of requests"
    )]
    let per_second = (slowest * HEAVY) as u32;
    per_second.max(1)
}

/// Each user of `ten` orders ten products, each of `hundred` a hundred, ten at a time. Returns the
/// last position.
async fn place_orders(
    shop: &Shop,
    ids: &Ids,
    ten: &[Uuid],
    hundred: &[Uuid],
) -> anyhow::Result<u64> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut orders = Vec::new();
    for user in ten {
        orders.push(order(*user, &ids.any_products(&mut random, LINES)));
    }
    for user in hundred {
        let products = ids.any_products(&mut random, LINES * 10);
        orders.extend(products.chunks(LINES).map(|some| order(*user, some)));
    }
    post_all(&shop.orders, "/orders", orders).await
}

async fn start(shop: &Shop, style: &str) -> anyhow::Result<Process> {
    let (users, products, orders) = (shop.users.url(), shop.products.url(), shop.orders.url());
    let flags = [
        "--style",
        style,
        "--users-url",
        &users,
        "--products-url",
        &products,
        "--orders-url",
        &orders,
    ];
    shop.stage.start("purchases", style, &flags).await
}

/// Waits until a style shows all orders: the replica with `?after`, the others ask the sources.
async fn expect_all(process: &Process, style: &str, user: Uuid, last: u64) -> anyhow::Result<()> {
    let after = if style == STYLES[0] {
        format!("?after=orders:{last}")
    } else {
        String::new()
    };
    let mut connection = Connection::open(process.address).await?;
    let path = format!("/users/{user}/purchases{after}");
    let answer = connection.get_within(&path, READY_WITHIN).await;
    let answer = answer.with_context(|| format!("ask {style}"))?;
    let found = answer["purchases"].as_array().map_or(0, Vec::len);
    ensure!(found >= LINES, "{style} shows {found} products");
    Ok(())
}

/// The number of requests that a process has sent to other services.
async fn questions(process: &Process) -> anyhow::Result<f64> {
    let mut connection = Connection::open(process.admin).await?;
    let answer = connection.get("/metrics").await?;
    let text = String::from_utf8_lossy(answer.body);
    Ok(sum_of(COUNTER, &text))
}

/// The sum of a counter over its labels, from Prometheus text.
fn sum_of(counter: &str, text: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(counter)?;
        let is_it = rest.starts_with('{') || rest.starts_with(' ');
        is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    values.sum()
}

fn figure(most: &[Vec<Load>; 6], asked: &[Vec<Asked>; 6]) -> Figure {
    let columns = [
        ("per second", 0),
        ("p50 ms", 2),
        ("p99 ms", 2),
        ("p99.9 ms", 2),
        ("questions", 2),
    ];
    let mut figure = Figure::new(Table::new("answers", &columns));
    for (kind, products) in ["10 products", "100 products"].into_iter().enumerate() {
        for (number, style) in STYLES.iter().enumerate() {
            let (its_most, its) = (&most[number * 2 + kind], &asked[number * 2 + kind]);
            let questions = its.iter().map(|round| round.questions).fold(0.0, f64::max);
            let mut row = |load: &str, rounds: &[Load]| {
                let [rate, p50, p99, p999] = Load::of_all(rounds).cells();
                let cells = [rate, p50, p99, p999, questions];
                figure
                    .table
                    .row(format!("{style}, {products}, {load}"), &cells);
            };
            let of = |load: fn(&Asked) -> &Load| its.iter().map(load).cloned().collect::<Vec<_>>();
            row("light", &of(|round| &round.light));
            row("heavy", &of(|round| &round.heavy));
            row("at most", its_most);
            if number > 0 {
                let pairs = ((its, &asked[kind]), (&most[kind], its_most));
                compare(&mut figure, products, style, pairs);
            }
        }
    }
    figure
}

/// Two rounds to compare.
type Pair<'a, T> = (&'a Vec<T>, &'a Vec<T>);

/// Compares a style with the replica, at the loads that are the same for both, and at maximum.
fn compare(
    figure: &mut Figure,
    products: &str,
    style: &str,
    ((its, ours), (our_most, its_most)): (Pair<Asked>, Pair<Load>),
) {
    for (load, p50) in [
        ("light", (|round| round.light.ms(50.0)) as fn(&Asked) -> f64),
        ("heavy", |round| round.heavy.ms(50.0)),
    ] {
        let name = format!("{products}, {load}: p50 of {style} / replica");
        figure.compare(name, (its, ours), p50, Target::AtLeast(10.0));
    }
    let name = format!("{products}: most of replica / {style}");
    figure.compare(
        name,
        (our_most, its_most),
        |round| round.per_second,
        Target::None,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        let text = "# TYPE purchases_requests_total counter\n\
                    purchases_requests_total{source=\"users\"} 3\n\
                    purchases_requests_total{source=\"orders\"} 4\n\
                    purchases_requests_total_seconds 9\nother 5\n";
        assert!((sum_of(COUNTER, text) - 7.0).abs() < 1e-9);
        assert!(sum_of(COUNTER, "").abs() < 1e-9);
    }
}
