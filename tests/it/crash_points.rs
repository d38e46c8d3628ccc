//! Each task dies at each crash point, under load, and comes back.
//!
//! The process aborts exactly there, as `kill -9` would end it. Afterwards every acknowledged
//! command is everywhere once: see [`oracle::all_agree`].

use std::collections::BTreeSet;
use std::process::Command;

use e2e::load::{Customers, Mix};
use e2e::{Process, Service, World, oracle};

use Service::{Orders, Products, Purchases, Users};

/// The number of waiting rows from which the relay sends an atomic batch.
const BATCH_MIN: usize = 14;

/// Crash points that the tests of effects, rebuilds, dead letters and erasure pass.
const ELSEWHERE: &[&str] = &[
    "effect.intended",
    "effect.due",
    "effect.performed",
    "effect.removed",
    "effect.settled",
    "rebuild.received",
    "rebuild.begun",
    "rebuild.folding",
    "rebuild.compared",
    "rebuild.switched",
    "rebuild.swapped",
    "rebuild.merging",
    "rebuild.merged",
    "dead-letter.retried",
    "dead-letter.discarded",
    "erasure.committed",
    "erasure.overwritten",
    "erasure.scrubbed",
];

/// One test per line: the service, the crash point, and the pass at which it dies.
macro_rules! deaths {
    ($($(#[$note:meta])* fn $name:ident() { $how:ident($service:ident, $point:literal, $pass:literal) })*) => {
        const HERE: &[&str] = &[$($point),*];
        $(
            $(#[$note])*
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                $how($service, concat!($point, ":", $pass)).await;
            }
        )*
    };
}

// A service passes the crash points of commits and projections a few times during its start.
deaths! {
    fn commit_group_of_users() { dies_under_load(Users, "commit.group", 8) }
    fn commit_before_of_users() { dies_under_load(Users, "commit.before", 8) }
    fn commit_after_of_users() { dies_under_load(Users, "commit.after", 8) }
    fn commit_group_of_products() { dies_under_load(Products, "commit.group", 8) }
    fn commit_before_of_products() { dies_under_load(Products, "commit.before", 8) }
    fn commit_after_of_products() { dies_under_load(Products, "commit.after", 8) }
    fn commit_group_of_orders() { dies_under_load(Orders, "commit.group", 15) }
    fn commit_before_of_orders() { dies_under_load(Orders, "commit.before", 15) }
    fn commit_after_of_orders() { dies_under_load(Orders, "commit.after", 15) }

    fn relay_read_of_users() { dies_under_load(Users, "relay.read", 3) }
    fn relay_half_of_users() { dies_under_load(Users, "relay.half", 3) }
    fn relay_sent_of_users() { dies_under_load(Users, "relay.sent", 3) }
    fn relay_published_of_users() { dies_under_load(Users, "relay.published", 3) }
    fn relay_read_of_products() { dies_under_load(Products, "relay.read", 3) }
    fn relay_half_of_products() { dies_under_load(Products, "relay.half", 3) }
    fn relay_sent_of_products() { dies_under_load(Products, "relay.sent", 3) }
    fn relay_published_of_products() { dies_under_load(Products, "relay.published", 3) }
    fn relay_read_of_orders() { dies_under_load(Orders, "relay.read", 3) }
    fn relay_half_of_orders() { dies_under_load(Orders, "relay.half", 3) }
    fn relay_sent_of_orders() { dies_under_load(Orders, "relay.sent", 3) }
    fn relay_published_of_orders() { dies_under_load(Orders, "relay.published", 3) }

    fn relay_read_of_a_batch_of_orders() { dies_with_a_batch(Orders, "relay.read", 1) }
    fn relay_half_of_a_batch_of_users() { dies_with_a_batch(Users, "relay.half", 1) }
    fn relay_half_of_a_batch_of_products() { dies_with_a_batch(Products, "relay.half", 1) }
    fn relay_half_of_a_batch_of_orders() { dies_with_a_batch(Orders, "relay.half", 1) }
    fn relay_sent_of_a_batch_of_users() { dies_with_a_batch(Users, "relay.sent", 1) }
    fn relay_sent_of_a_batch_of_products() { dies_with_a_batch(Products, "relay.sent", 1) }
    fn relay_sent_of_a_batch_of_orders() { dies_with_a_batch(Orders, "relay.sent", 1) }
    fn relay_published_of_a_batch_of_orders() { dies_with_a_batch(Orders, "relay.published", 1) }

    fn projection_received_of_purchases() { dies_under_load(Purchases, "projection.received", 8) }
    fn projection_applied_of_purchases() { dies_under_load(Purchases, "projection.applied", 8) }
    fn projection_moved_of_purchases() { dies_under_load(Purchases, "projection.moved", 8) }
    fn projection_committed_of_purchases() { dies_under_load(Purchases, "projection.committed", 8) }
    fn projection_received_of_the_catalogue() { dies_under_load(Orders, "projection.received", 6) }
    fn projection_applied_of_the_catalogue() { dies_under_load(Orders, "projection.applied", 6) }
    fn projection_moved_of_the_catalogue() { dies_under_load(Orders, "projection.moved", 6) }
    fn projection_committed_of_the_catalogue() { dies_under_load(Orders, "projection.committed", 6) }

    fn projection_gap_of_purchases() { dies_in_a_gap(Purchases, "projection.gap", 2) }
    fn projection_gap_of_the_catalogue() { dies_in_a_gap(Orders, "projection.gap", 2) }
}

#[test]
fn every_place_has_a_test() {
    let tested: BTreeSet<&str> = HERE.iter().chain(ELSEWHERE).copied().collect();
    let all: BTreeSet<&str> = headwater::crash::POINTS.iter().copied().collect();
    assert_eq!(tested, all);
}

/// The sources without which a service accepts no commands.
fn sources(of: Service) -> &'static [Service] {
    match of {
        Users => &[Users],
        Products => &[Products],
        _ => &Service::SOURCES,
    }
}

/// A world with only the services that `service` needs.
async fn world_of(service: Service) -> World {
    let services = match service {
        Purchases => &Service::ALL,
        source => sources(source),
    };
    World::anywhere().of_services(services).start().await
}

/// Arms a crash point of a service.
fn at(place: &'static str) -> impl Fn(&mut Command) {
    move |command| {
        command.env("HEADWATER_CRASH", place);
    }
}

/// `service` dies while its sources are written to. The load continues until it is back and has
/// done more.
async fn dies_under_load(service: Service, place: &'static str) {
    let mut world = world_of(service).await;
    let customers = Customers::of(&world).await;
    world.kill(service).await;
    world.run_with(service, at(place)).await;
    let load = customers.begin(Mix {
        fresh: true,
        ..Mix::on(sources(service))
    });
    comes_back(&mut world, service, place).await;
    for source in sources(service) {
        customers.more(*source, 4).await;
    }
    load.end().await;
    oracle::all_agree(&mut world, &customers).await;
    world.finish().await;
}

/// Enough rows for a batch wait when the broker comes back.
async fn dies_with_a_batch(service: Service, place: &'static str) {
    let mut world = world_of(service).await;
    let customers = Customers::of(&world).await;
    oracle::stream_agrees(&world, service, &customers.ledger()).await;
    let published = oracle::stored(&world, service).await.len();
    world.broker.kill().unwrap();
    world.kill(service).await;
    world.run_with(service, at(place)).await;
    customers.send_some(service, BATCH_MIN + 6).await;
    world.broker.restart().unwrap();
    let died = world.ended(service).await;
    assert_died_at(died, place);
    let stored = oracle::stored(&world, service).await.len();
    let (none, all) = (published, published + BATCH_MIN + 6);
    assert!(
        [none, all].contains(&stored),
        "a batch is stored completely or not at all: {stored}"
    );
    world.run(service).await;
    customers.send_some(service, 3).await;
    oracle::all_agree(&mut world, &customers).await;
    world.finish().await;
}

/// Two events in the middle of a source's stream are missing.
async fn dies_in_a_gap(reader: Service, place: &'static str) {
    let mut world = World::anywhere().empty();
    world.make_soft_streams().await;
    world.run_all().await;
    let customers = Customers::of(&world).await;
    world.caught_up().await;
    world.kill(reader).await;
    let from = oracle::stored(&world, Users).await.len() as u64;
    customers.send_some(Users, 12).await;
    oracle::stream_agrees(&world, Users, &customers.ledger()).await;
    let stream = world.stream(Users).await;
    for missing in [from + 4, from + 8] {
        assert!(stream.delete_message(missing).await.unwrap());
    }
    world.run_with(reader, at(place)).await;
    comes_back(&mut world, reader, place).await;
    customers.send_some(Orders, 3).await;
    oracle::shown_agrees(&world, &customers.ledger()).await;
    // `orders` knows the users whose events were missing.
    let load = customers.begin(Mix {
        fresh: true,
        ..Mix::on(&[Orders])
    });
    customers.more(Orders, 30).await;
    load.end().await;
    oracle::shown_agrees(&world, &customers.ledger()).await;
    world.finish().await;
}

/// Waits until a service dies at its crash point, and starts it again.
async fn comes_back(world: &mut World, service: Service, place: &str) {
    let died = world.ended(service).await;
    assert_died_at(died, place);
    world.run(service).await;
}

fn assert_died_at(mut process: Process, place: &str) {
    let log = process.log();
    assert!(process.crashed(), "it did not die at {place}:\n{log}");
}
