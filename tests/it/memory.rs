//! Memory does not grow with the backlog.

use e2e::Service;
use e2e::backlog::{self, peak_kib};
use e2e::faults::{dose, tell};

/// The peaks of `orders`, which relays, and of `purchases`, which applies, after a backlog of
/// `count` events.
async fn peaks(count: usize) -> (u64, u64) {
    let (mut world, user) = backlog::shop().await;
    world.stop(Service::Purchases).await;
    world.stop(Service::Orders).await;
    let last = backlog::fill(&world, &user, count);
    world.run(Service::Orders).await;
    world.run(Service::Purchases).await;
    backlog::applied(&world, &user, last).await;
    assert_eq!(world.titles(&user.id()).await, ["Mug"]);
    let orders = peak_kib(world.process(Service::Orders).pid());
    let purchases = peak_kib(world.process(Service::Purchases).pid());
    world.finish().await;
    (orders, purchases)
}

/// With `HEADWATER_DOSE=17`, a million events.
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_the_events_that_wait() {
    // Enough to fill SQLite's page caches, which have their own limit.
    let (few, many) = (20_000, dose(60_000));
    let (before, after) = (peaks(few).await, peaks(many).await);
    tell(&format!(
        "peak memory (relay, projection): {before:?} KiB with {few} events waiting, \
         {after:?} KiB with {many}"
    ));
    let allowed = 32 * 1024;
    assert!(after.0 < before.0 + allowed, "the relay's memory grows");
    assert!(
        after.1 < before.1 + allowed,
        "the projection's memory grows"
    );
}
