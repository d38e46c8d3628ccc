//! Several relays of one source, and foreign changes to its stream.

use async_nats::HeaderMap;
use e2e::faults::{dose, logged, metric, says};
use e2e::load::{Customers, Mix};
use e2e::oracle::Stored;
use e2e::{Service, World, eventually, oracle};
use headwater::Event;
use shop_events::OrderPlaced;
use uuid::Uuid;

use Service::{Orders, Products, Purchases, Users};

/// Waits until the stream of the orders holds `count` events.
async fn stream_holds(world: &World, count: u64) {
    let stream = world.stream(Orders).await;
    eventually("events in the stream", || async {
        let now = stream.get_info().await.unwrap().state.messages;
        if now >= count {
            Ok(())
        } else {
            Err(format!("{now} of {count}"))
        }
    })
    .await;
}

/// All three relays wake up when the broker is back, and want to publish the same rows. The one
/// stopped in the middle has read rows and may have sent some.
#[tokio::test(flavor = "multi_thread")]
async fn of_three_relays_one_is_stopped_and_continued_and_each_event_is_there_once() {
    let mut world = World::on_host().start().await;
    let customers = Customers::of(&world).await;
    let rivals = [world.rival(), world.rival()];
    for round in 0..dose(6) {
        oracle::stream_agrees(&world, Orders, &customers.ledger()).await;
        let before = world.stream(Orders).await.cached_info().state.messages;
        world.broker.kill().unwrap();
        let load = customers.begin(Mix {
            clients: 8,
            pause: std::time::Duration::ZERO,
            ..Mix::on(&[Orders])
        });
        customers.more(Orders, 150).await;
        world.broker.restart().unwrap();
        stream_holds(&world, before + 1).await;
        let stopped = rivals.get(round % 3);
        stopped.unwrap_or(world.process(Orders)).pause();
        stream_holds(&world, before + 100).await;
        stopped.unwrap_or(world.process(Orders)).resume();
        customers.more(Orders, 20).await;
        load.end().await;
    }
    oracle::all_agree(&mut world, &customers).await;
    drop(rivals);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rival_publishes_what_a_stopped_service_left() {
    let mut world = World::on_host().start().await;
    let customers = Customers::of(&world).await;
    let rival = world.rival();
    oracle::stream_agrees(&world, Orders, &customers.ledger()).await;
    world.broker.kill().unwrap();
    customers.send_some(Orders, 60).await;
    world.process(Orders).pause();
    world.broker.restart().unwrap();
    oracle::stream_agrees(&world, Orders, &customers.ledger()).await;
    world.process(Orders).resume();
    customers.send_some(Orders, 10).await;
    oracle::all_agree(&mut world, &customers).await;
    drop(rival);
    world.finish().await;
}

/// Two processes of one service would compete for its consumer or its read store.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_a_database_says_who_has_it_and_does_not_start() {
    let mut world = World::on_host().start().await;
    let lock_file = |service| world.database(service).with_extension("db.lock");
    // Without its file the lock excludes no process; the service creates it again.
    std::fs::remove_file(lock_file(Purchases)).unwrap();
    eventually("the lock file", || {
        let there = lock_file(Purchases).exists();
        std::future::ready(there.then_some(()).ok_or("it is gone"))
    })
    .await;
    for service in [Orders, Purchases] {
        let mut second = world.spawn(service, |command| {
            command.env("HEADWATER_LISTEN", "127.0.0.1:0");
        });
        assert_eq!(second.ended().code(), Some(1), "{}", second.log());
        let holder = world.process(service).pid();
        let why = format!("another process (pid {holder}) has this database open");
        assert!(second.log().contains(&why), "{}", second.log());
    }
    // A killed process holds no lock.
    for service in [Orders, Purchases] {
        world.kill(service).await;
        world.run(service).await;
    }
    world.in_touch().await;
    world.finish().await;
}

/// Publishes an order of an unregistered user by hand.
async fn publish_foreign(jetstream: &async_nats::jetstream::Context) {
    let placed = OrderPlaced {
        order_id: Uuid::now_v7().to_string(),
        user_id: Uuid::now_v7().to_string(),
        product_ids: vec![Uuid::now_v7().to_string()],
        placed_at: None,
    };
    let payload = encoded(&placed).into();
    let published = jetstream.publish("orders.v1.placed.7", payload).await;
    published.unwrap().await.unwrap();
}

fn encoded<E: Event>(event: &E) -> Vec<u8> {
    event.encode_to_vec()
}

/// Publishes an event of the stream again, with its id.
async fn publish_copy(world: &World, jetstream: &async_nats::jetstream::Context, sequence: u64) {
    let stream = world.stream(Orders).await;
    let event = stream.get_raw_message(sequence).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(
        "Nats-Msg-Id",
        event.headers.get("Nats-Msg-Id").unwrap().as_str(),
    );
    eventually("the dedupe window to pass", || async {
        let published = jetstream.publish_with_headers(
            event.subject.clone(),
            headers.clone(),
            event.payload.clone(),
        );
        let ack = published.await.unwrap().await.unwrap();
        if ack.duplicate {
            Err("refused as a duplicate")
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_events_and_copies_in_the_middle_neither_stop_nor_double_anything() {
    let mut world = World::on_host().start().await;
    let customers = Customers::of(&world).await;
    let jetstream = async_nats::jetstream::new(world.nats().await);
    customers.send_some(Orders, 9).await;
    oracle::stream_agrees(&world, Orders, &customers.ledger()).await;
    let load = customers.begin(Mix::on(&[Orders]));
    let rounds = dose(10) as u64;
    for round in 0..rounds {
        publish_foreign(&jetstream).await;
        publish_copy(&world, &jetstream, 1 + round % 9).await;
        customers.more(Orders, 3).await;
    }
    load.end().await;
    let ledger = customers.ledger();
    let wanted: Vec<u64> = ledger.of(Orders).into_keys().collect();
    let wanted = (wanted, rounds, rounds);
    eventually("the stream to hold all of them", || async {
        let found = sorted_out(&oracle::stored(&world, Orders).await);
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
    oracle::shown_agrees(&world, &ledger).await;
    oracle::keys_have_one_effect(&world, &customers).await;
    oracle::rebuilt_agrees(&mut world, &ledger).await;
    world.finish().await;
}

/// The positions in a stream in order, the number of copies after them, and the number of foreign
/// events.
fn sorted_out(stored: &[Stored]) -> (Vec<u64>, u64, u64) {
    let (mut own, mut copies, mut foreign) = (vec![], 0, 0);
    for event in stored {
        if event.id.is_empty() {
            foreign += 1;
        } else if own.last().is_none_or(|last| *last < event.position()) {
            own.push(event.position());
        } else {
            copies += 1;
        }
    }
    (own, copies, foreign)
}

/// A world whose streams allow deletion, without `purchases`. An event of the orders that
/// `purchases` has not read is missing in the stream: the third of ten.
async fn world_with_a_gap() -> (World, Customers, u64) {
    let mut world = World::on_host().empty();
    world.make_soft_streams().await;
    world.run_all().await;
    let customers = Customers::of(&world).await;
    world.caught_up().await;
    world.stop(Purchases).await;
    customers.send_some(Orders, 10).await;
    oracle::stream_agrees(&world, Orders, &customers.ledger()).await;
    let stored = oracle::stored(&world, Orders).await;
    let missing = &stored[stored.len() - 8];
    let stream = world.stream(Orders).await;
    assert!(stream.delete_message(missing.sequence).await.unwrap());
    (world, customers, missing.position())
}

const FETCHED: &str = "the stream misses events: fetched from the outbox";
const PART: &str = "purchases from orders";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_an_admin_deleted_is_fetched_from_the_outbox_and_counted() {
    let (mut world, customers, _) = world_with_a_gap().await;
    world.run(Purchases).await;
    oracle::shown_agrees(&world, &customers.ledger()).await;
    let fetched = logged(&world, Purchases, "WARN", FETCHED);
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    let gap_events =
        "headwater_projection_gap_events_total{projection=\"purchases\",source=\"orders\"}";
    let counted = metric(&world.admin(Purchases), gap_events).await;
    assert!((counted - 1.0).abs() < 0.1, "{counted}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_whose_source_is_away_is_held_and_reported_until_it_is_back() {
    let (mut world, customers, missing) = world_with_a_gap().await;
    world.kill(Orders).await;
    world.run(Purchases).await;
    let purchases = world.client(Purchases);
    let detail = format!("the stream misses the events {missing} to {missing} of orders");
    says(&purchases, PART, "degraded", &detail).await;
    // The other sources continue, and this one stays at its position.
    customers.send_some(Users, 5).await;
    customers.send_some(Products, 5).await;
    world.caught_up().await;
    says(&purchases, PART, "degraded", &detail).await;
    let user = customers.ledger().commands[0].id.clone();
    let as_of = world.purchases(&user, "").await.json["as_of"]["orders"].clone();
    assert_eq!(as_of, missing - 1, "nothing is skipped");
    assert!(logged(&world, Purchases, "WARN", FETCHED).is_empty());

    world.run(Orders).await;
    customers.send_some(Orders, 3).await;
    oracle::shown_agrees(&world, &customers.ledger()).await;
    assert_eq!(logged(&world, Purchases, "WARN", FETCHED).len(), 1);
    world.finish().await;
}
