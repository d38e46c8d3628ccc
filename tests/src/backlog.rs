//! Backlogs of a hundred thousand events: for memory use, and for recovery after a crash.

use prost::Message as _;
use shop_events::OrderPlaced;

use crate::{Reply, Service, World, eventually};

/// How many events must arrive before the timeout starts again.
const STRIDE: u64 = 5_000;

/// A shop with one user who has ordered its only product.
pub async fn shop() -> (World, Reply) {
    let world = World::on_host().start().await;
    let (user, product) = (world.user("ada").await, world.product("Mug").await);
    world.order(&user, &[&product]).await;
    world.caught_up().await;
    (world, user)
}

/// Fills the outbox of the stopped `orders` with `count` copies of its only order; returns the last
/// position.
pub fn fill(world: &World, user: &Reply, count: usize) -> u64 {
    let database =
        rusqlite::Connection::open(world.database(Service::Orders)).expect("open the database");
    let sql = "SELECT payload FROM headwater_outbox WHERE position = 1";
    let payload: Vec<u8> = database
        .query_row(sql, [], |row| row.get(0))
        .expect("an order");
    let order = OrderPlaced::decode(&*payload).expect("an order");
    assert_eq!(order.user_id, user.id(), "another user's order");
    let sql = "WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT ?1)
        INSERT INTO headwater_outbox (subject, key, payload, recorded_at)
        SELECT ?2, ?3, ?4, 1700000000000 FROM number";
    let subject = headwater::subject_of(&order);
    let values = rusqlite::params![count, subject, order.user_id, payload];
    database.execute(sql, values).expect("fill the outbox");
    count as u64 + 1
}

/// Waits until the stream of `orders` has the position `last`.
pub async fn published(world: &World, last: u64) {
    let mut seen = 0;
    while seen < last {
        seen = eventually("more to be published", || async {
            let info = world.stream(Service::Orders).await.get_info().await;
            let now = info.expect("the stream's state").state.last_sequence;
            if now >= last.min(seen + STRIDE) {
                Ok(now)
            } else {
                Err(now)
            }
        })
        .await;
    }
}

/// Waits until `purchases` has applied the position `last` of `orders`.
pub async fn applied(world: &World, user: &Reply, last: u64) {
    let mut seen = 0;
    while seen < last {
        seen = eventually("more to be applied", || async {
            let reply = world.purchases(&user.id(), "").await;
            match reply.json["as_of"]["orders"].as_u64() {
                Some(now) if now >= last.min(seen + STRIDE) => Ok(now),
                _ => Err(reply.text),
            }
        })
        .await;
    }
}

/// The peak memory of a process, in KiB.
pub fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.expect("a peak").trim().trim_end_matches(" kB");
    number.parse().expect("a number")
}
