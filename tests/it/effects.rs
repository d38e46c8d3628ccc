//! The webhook of `orders` dies at each crash point, under load, and comes back.
//!
//! A receiver that remembers ids sees each order once; one that does not misses none.

use std::collections::{BTreeMap, BTreeSet};

use e2e::load::{Customers, Mix};
use e2e::receiver::{Delivery, Receiver};
use e2e::{Service, World, eventually};
use prost::Message as _;
use rusqlite::Connection;
use shop_events::OrderPlaced;

use Service::Orders;

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_is_not_committed() {
    dies("effect.intended:3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intent_that_is_due() {
    dies("effect.due:4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_done_and_not_recorded() {
    dies("effect.performed:4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removal_that_is_not_committed() {
    dies("effect.removed:4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_the_worker_does_not_know() {
    dies("effect.settled:4").await;
}

/// `orders` dies at `place` while orders are placed, and is started again.
async fn dies(place: &'static str) {
    let sources = World::on_host().of_services(&Service::SOURCES);
    let mut world = sources.start().await;
    let receiver = Receiver::start().await;
    let customers = Customers::of(&world).await;
    // Orders from before the first start are not sent.
    let first = world.heads().await.get(orders::NAME) + 1;
    world.kill(Orders).await;
    let sends = receiver.of();
    let armed = |command: &mut std::process::Command| {
        sends(command);
        command.env("HEADWATER_CRASH", place);
    };
    world.run_with(Orders, armed).await;
    let load = customers.begin(Mix {
        fresh: true,
        ..Mix::on(&Service::SOURCES)
    });
    let mut died = world.ended(Orders).await;
    let log = died.log();
    assert!(died.crashed(), "it did not die at {place}:\n{log}");
    world.run_with(Orders, &sends).await;
    customers.more(Orders, 4).await;
    load.end().await;
    let placed = outbox(&world, first);
    let last = u64::try_from(placed.len()).unwrap() + first;
    assert!(last > first + 4, "orders were placed");
    eventually("each order to be sent", async || {
        let sent: BTreeSet<Delivery> = receiver.deliveries().into_iter().collect();
        if sent == placed {
            return Ok(());
        }
        let missing: Vec<_> = placed.difference(&sent).collect();
        let unknown: Vec<_> = sent.difference(&placed).collect();
        Err(format!("missing: {missing:?}; unknown: {unknown:?}"))
    })
    .await;
    // The others were sent once: a crash repeats what was under way, at most.
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for delivery in receiver.deliveries() {
        *times.entry(delivery.id).or_default() += 1;
    }
    let again: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.len() <= 8, "{again:?}");
    world.finish().await;
}

/// What is to be sent of the outbox of `orders`, from the position `first` on.
fn outbox(world: &World, first: u64) -> BTreeSet<Delivery> {
    let db = Connection::open(world.database(Orders)).unwrap();
    let epoch = "SELECT epoch FROM headwater_database";
    let epoch: String = db.query_row(epoch, [], |row| row.get(0)).unwrap();
    let rows = "SELECT position, payload FROM headwater_outbox WHERE position >= ?";
    let mut rows = db.prepare(rows).unwrap();
    let rows = rows.query_map([first], |row| {
        let (position, payload): (u64, Vec<u8>) = (row.get(0)?, row.get(1)?);
        Ok(Delivery {
            id: format!("orders:{epoch}:{position}:orders-webhook"),
            order: OrderPlaced::decode(payload.as_slice()).unwrap().order_id,
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}
