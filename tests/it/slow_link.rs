//! Events get through any link that can carry them, both to the read store and to the broker.

use std::time::{Duration, Instant};

use e2e::{Reply, Service, World, backlog, eventually};
use headwater_testkit::Link;
use serde_json::Value;

/// In effect unlimited, in bytes per second.
const UNLIMITED: u64 = 1_000_000_000;

/// A shop whose `orders` has `count` events, with `purchases` stopped.
async fn behind(count: usize) -> (World, Reply, u64) {
    let (mut world, user) = backlog::shop().await;
    world.stop(Service::Purchases).await;
    world.stop(Service::Orders).await;
    let last = backlog::fill(&world, &user, count);
    world.run(Service::Orders).await;
    backlog::published(&world, last).await;
    (world, user, last)
}

/// Rebuilds `purchases` from nothing over `link`; returns the time it took.
async fn rebuild(world: &mut World, link: &Link, user: &Reply, last: u64) -> Duration {
    world.delete_database(Service::Purchases);
    world.reach_broker_at(link.url());
    let began = Instant::now();
    world.run(Service::Purchases).await;
    backlog::applied(world, user, last).await;
    began.elapsed()
}

async fn link(world: &World, rate: u64, delay: Duration) -> Link {
    let broker = ([127, 0, 0, 1], world.broker.port()).into();
    Link::to(broker, rate, delay).await
}

/// Asserts that no reader timed out and started again.
fn expect_no_retries(world: &World) {
    let log = world.log(Service::Purchases);
    let retries: Vec<_> = log
        .lines()
        .filter(|line| line.contains("projection waits"))
        .collect();
    assert!(retries.is_empty(), "{retries:#?}");
}

/// A cold read store over a link of `rate` bytes per second: it requests nothing twice, and keeps
/// the link busy.
async fn catches_up(count: usize, rate: u64, delay: Duration) {
    let (mut world, user, last) = behind(count).await;
    let fast = link(&world, UNLIMITED, Duration::ZERO).await;
    rebuild(&mut world, &fast, &user, last).await;
    let needed = fast.carried();
    world.stop(Service::Purchases).await;

    let slow = link(&world, rate, delay).await;
    let took = rebuild(&mut world, &slow, &user, last).await;
    let carried = slow.carried();
    assert!(
        carried * 10 <= needed * 11,
        "{carried} bytes instead of {needed}"
    );
    let needs = Duration::from_millis(needed * 1000 / rate);
    assert!(took <= needs * 13 / 10, "{took:?} instead of {needs:?}");
    expect_no_retries(&world);
    assert_eq!(world.titles(&user.id()).await, ["Mug"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_read_store_catches_up_over_64_kb_a_second() {
    catches_up(2_000, 64_000, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_read_store_catches_up_over_250_kb_a_second_with_200_ms_of_delay() {
    catches_up(10_000, 250_000, Duration::from_millis(100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_delays_neither_other_sources_nor_operators() {
    let (mut world, user, last) = behind(4_000).await;
    let slow = link(&world, 64_000, Duration::ZERO).await;
    world.delete_database(Service::Purchases);
    world.reach_broker_at(slow.url());
    world.run(Service::Purchases).await;
    let nats = world.nats().await;
    reached(&nats, "orders", 1).await;
    let mut delays = Vec::new();
    for number in 0..5 {
        let began = Instant::now();
        position(&nats, "orders").await.unwrap();
        delays.push(began.elapsed());
        let registered = world.user(&format!("ada-{number}")).await;
        let began = Instant::now();
        let wanted = registered.position().strip_prefix("users:").unwrap();
        reached(&nats, "users", wanted.parse().unwrap()).await;
        delays.push(began.elapsed());
    }
    delays.sort();
    assert!(
        delays[delays.len() / 2] < Duration::from_secs(1),
        "{delays:?}"
    );
    let orders = position(&nats, "orders").await.unwrap();
    assert!(orders < last, "the backlog was over too soon");
    slow.set_rate(UNLIMITED);
    backlog::applied(&world, &user, last).await;
    expect_no_retries(&world);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_gets_slow_and_fast_again_carries_nothing_twice() {
    let (mut world, user, last) = behind(30_000).await;
    let fast = link(&world, UNLIMITED, Duration::ZERO).await;
    rebuild(&mut world, &fast, &user, last).await;
    let needed = fast.carried();
    world.stop(Service::Purchases).await;

    let link = link(&world, 2_000_000, Duration::from_millis(5)).await;
    world.delete_database(Service::Purchases);
    world.reach_broker_at(link.url());
    world.run(Service::Purchases).await;
    carried(&link, needed / 4).await;
    link.set_rate(64_000);
    carried(&link, needed / 4 + 600_000).await;
    link.set_rate(2_000_000);
    backlog::applied(&world, &user, last).await;
    let total = link.carried();
    assert!(
        total * 10 <= needed * 11,
        "{total} bytes instead of {needed}"
    );
    expect_no_retries(&world);
    world.finish().await;
}

/// A request that does not get through within its timeout is not repeated unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_publishes_over_32_kb_a_second() {
    let (mut world, user) = backlog::shop().await;
    world.stop(Service::Orders).await;
    let last = backlog::fill(&world, &user, 1_500);
    let slow = link(&world, 32_000, Duration::ZERO).await;
    world.reach_broker_at(slow.url());
    world.run(Service::Orders).await;
    backlog::applied(&world, &user, last).await;
    slow.set_rate(UNLIMITED);
    world.finish().await;
}

/// Waits until the link has carried `bytes`.
async fn carried(link: &Link, bytes: u64) {
    eventually("the link to carry more", || {
        let carried = link.carried();
        std::future::ready(if carried >= bytes {
            Ok(())
        } else {
            Err(carried)
        })
    })
    .await;
}

/// The position of `purchases`, from its admin endpoints.
async fn position(nats: &async_nats::Client, source: &str) -> Result<u64, String> {
    let reply = nats.request("headwater.purchases.status", "".into()).await;
    let reply = reply.map_err(|error| error.to_string())?;
    let status: Value =
        serde_json::from_slice(&reply.payload).map_err(|error| error.to_string())?;
    let position = status["projections"][0]["positions"][source].as_u64();
    position.ok_or_else(|| status.to_string())
}

/// Waits until `purchases` has applied `wanted` of `source`.
async fn reached(nats: &async_nats::Client, source: &str, wanted: u64) {
    eventually("a position", || async {
        match position(nats, source).await {
            Ok(position) if position >= wanted => Ok(()),
            other => Err(other),
        }
    })
    .await;
}
