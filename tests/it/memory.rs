//! Memory that does not grow with what waits.

use e2e::faults::{dose, tell};
use e2e::{Service, World};
use events::OrderPlaced;
use prost::Message as _;
use serde_json::json;

/// The most memory that a process ever had, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

/// Fills the outbox of the stopped service `orders` with copies of one order.
fn fill(world: &World, order: &OrderPlaced, count: usize) {
    let subject = headwater::subject_of(order);
    let payload = order.encode_to_vec();
    let database = rusqlite::Connection::open(world.database(Service::Orders)).unwrap();
    let sql = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT ?1)
        INSERT INTO headwater_outbox (subject, key, payload, recorded_at)
        SELECT ?2, ?3, ?4, 1700000000000 FROM number";
    let values = rusqlite::params![count, subject, order.user_id, payload];
    database.execute(sql, values).unwrap();
}

/// The peaks of `orders`, which relays, and of `purchases`, which projects, after `count` events
/// waited for them.
async fn peaks(count: usize) -> (u64, u64) {
    let mut world = World::start().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    world.stop(Service::Purchases).await;
    world.stop(Service::Orders).await;
    let order = OrderPlaced {
        order_id: uuid::Uuid::nil().to_string(),
        user_id: ada.id(),
        product_ids: vec![mug.id(); 5],
        placed_at: Some(events::timestamp(1_700_000_000_000)),
    };
    fill(&world, &order, count);
    world.run(Service::Orders).await;
    world.run(Service::Purchases).await;
    // A minute, and a minute more for every 20,000.
    for _ in 0..=count / 20_000 {
        let after = format!("orders:{}", count + 1);
        let until = tokio::time::Instant::now() + e2e::PATIENCE;
        while tokio::time::Instant::now() < until {
            if world.purchases(&ada.id(), &after).await.status == 200 {
                let orders = peak_kib(world.process(Service::Orders).pid());
                let purchases = peak_kib(world.process(Service::Purchases).pid());
                assert_eq!(world.titles(&ada.id()).await, ["Mug"]);
                world.finish().await;
                return (orders, purchases);
            }
        }
    }
    panic!(
        "{count} events do not get through: {}",
        json!(world.heads().await)
    );
}

/// `HEADWATER_DOSE=17` is a million events.
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_events_that_wait() {
    // Enough to fill SQLite's page caches, which have a limit of their own.
    let few = peaks(20_000).await;
    let many = peaks(dose(60_000)).await;
    tell(&format!(
        "peak memory (relay, projection): {few:?} KiB with 20,000 events waiting, {many:?} KiB with {}",
        dose(60_000)
    ));
    let allowed = 32 * 1024;
    assert!(
        many.0 < few.0 + allowed,
        "relay: {} KiB, then {} KiB",
        few.0,
        many.0
    );
    assert!(
        many.1 < few.1 + allowed,
        "projection: {} KiB, then {} KiB",
        few.1,
        many.1
    );
}
