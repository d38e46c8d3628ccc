//! The broker loses its data under steady writes: that data is expendable.

use std::time::Duration;

use async_nats::jetstream;
use broker::{Broker, Options};
use e2e::faults::{Mount, dose, logged, metric, says, tell};
use e2e::load::{Customers, Load, Mix};
use e2e::{Service, World, eventually, oracle};
use headwater_testkit::copy_folder;
use serde_json::json;

use Service::{Orders, Products, Purchases, Users};

const LOST: &str = "the stream lost events";

/// About 200 writes per second, on all sources.
const STEADY: Mix = Mix {
    clients: 12,
    pause: Duration::from_millis(40),
    ..Mix::on(&Service::SOURCES)
};

/// Starts a load and waits for some history.
async fn under_load(world: &World) -> (Customers, Load) {
    let customers = Customers::of(world).await;
    let load = customers.begin(STEADY);
    customers.more(Orders, 30).await;
    (customers, load)
}

/// Asserts that the load met no refusal and that everything agrees again.
async fn heals(mut world: World, customers: Customers, load: Load, lost: &[Service]) {
    customers.more(Orders, 30).await;
    for source in lost {
        sees_its_loss(&world, *source).await;
    }
    load.end().await;
    customers.ledger().assert_taken_at_once();
    for source in Service::SOURCES {
        oracle::stream_agrees(&world, source, &customers.ledger()).await;
        tells_of_its_loss(&world, source, lost.contains(&source)).await;
    }
    oracle::all_agree(&mut world, &customers).await;
    world.finish().await;
}

async fn sees_its_loss(world: &World, source: Service) {
    eventually("the relay to see its loss", || async {
        let lines = logged(world, source, "WARN", LOST);
        if lines.is_empty() {
            Err(source.name())
        } else {
            Ok(())
        }
    })
    .await;
}

/// Asserts one log line per loss, with the same number of events as the metric.
async fn tells_of_its_loss(world: &World, source: Service, lost: bool) {
    let lines = logged(world, source, "WARN", LOST);
    assert_eq!(lines.len(), usize::from(lost), "{lines:?}");
    let events: u64 = lines
        .iter()
        .map(|line| line["acknowledged"].as_u64().unwrap() - line["position"].as_u64().unwrap())
        .sum();
    assert!(!lost || events > 0, "{lines:?}");
    let name = source.name();
    let republished = format!("headwater_relay_republished_total{{source=\"{name}\"}}");
    let counted = metric(&world.admin(source), &republished).await;
    assert_eq!(counted.to_string(), events.to_string(), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_deleted_under_writes_is_made_again_and_filled() {
    let world = World::start().await;
    let (customers, load) = under_load(&world).await;
    let jetstream = jetstream::new(world.nats().await);
    jetstream.delete_stream("ORDERS").await.unwrap();
    heals(world, customers, load, &[Orders]).await;
}

/// Nothing is written to this source until its relay has noticed.
#[tokio::test(flavor = "multi_thread")]
async fn a_purged_stream_is_filled() {
    let mut world = World::anywhere().empty();
    world.make_soft_streams().await;
    world.run_all().await;
    let customers = Customers::of(&world).await;
    customers.send_some(Orders, 30).await;
    oracle::stream_agrees(&world, Orders, &customers.ledger()).await;
    let others = customers.begin(Mix {
        services: &[Users, Products],
        ..STEADY
    });
    world.stream(Orders).await.purge().await.unwrap();
    sees_its_loss(&world, Orders).await;
    others.end().await;
    let load = customers.begin(STEADY);
    heals(world, customers, load, &[Orders]).await;
}

/// A relay cannot republish purged events after later ones without breaking the order, so they stay
/// missing. Readers fetch them from the outbox.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_purged_under_writes_is_missed_by_no_reader() {
    let mut world = World::anywhere().empty();
    world.make_soft_streams().await;
    world.run_all().await;
    let (customers, load) = under_load(&world).await;
    world.stream(Orders).await.purge().await.unwrap();
    customers.more(Orders, 30).await;
    eventually("the relay to report it", || async {
        let lines = logged(&world, Orders, "WARN", "the stream lost its beginning");
        if lines.is_empty() {
            Err("nothing")
        } else {
            Ok(())
        }
    })
    .await;
    load.end().await;
    let ledger = customers.ledger();
    oracle::shown_agrees(&world, &ledger).await;
    oracle::rebuilt_agrees(&mut world, &ledger).await;
    let stored = oracle::stored(&world, Orders).await;
    let found: Vec<u64> = stored.iter().map(oracle::Stored::position).collect();
    let wanted: Vec<u64> = (found[0]..=ledger.count(Orders) as u64).collect();
    assert_eq!(found, wanted, "the rest is complete and in order");
    let lines = logged(&world, Orders, "WARN", "the stream lost its beginning");
    assert_eq!(lines.len(), 1, "{lines:?}");
    let purged = "headwater_relay_purged_total{source=\"orders\"}";
    let purged = metric(&world.admin(Orders), purged).await;
    assert_eq!(purged.to_string(), (found[0] - 1).to_string());
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_deleted_under_writes_is_filled_from_the_outboxes() {
    let mut world = World::start().await;
    let (customers, load) = under_load(&world).await;
    world.broker.kill().unwrap();
    std::fs::remove_dir_all(world.broker.store().join("jetstream")).unwrap();
    world.broker.restart().unwrap();
    heals(world, customers, load, &Service::SOURCES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_put_back_from_an_older_copy_under_writes_is_filled_from_the_outboxes() {
    let mut world = World::start().await;
    let (customers, load) = under_load(&world).await;
    let store = world.broker.store().join("jetstream");
    let copy = world.folder().join("older");
    world.broker.stop().unwrap();
    copy_folder(&store, &copy).unwrap();
    world.broker.restart().unwrap();
    customers.more(Orders, 60).await;
    world.caught_up().await;
    world.broker.kill().unwrap();
    std::fs::remove_dir_all(&store).unwrap();
    copy_folder(&copy, &store).unwrap();
    world.broker.restart().unwrap();
    heals(world, customers, load, &Service::SOURCES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_durable_consumer_deleted_under_writes_is_made_again() {
    let world = World::start().await;
    let (customers, load) = under_load(&world).await;
    for source in Service::SOURCES {
        let stream = world.stream(source).await;
        stream.delete_consumer(purchases::NAME).await.unwrap();
    }
    customers.more(Orders, 30).await;
    world.caught_up().await;
    heals(world, customers, load, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_writes_without_the_broker_are_drained_in_order() {
    let mut world = World::start().await;
    let (customers, load) = under_load(&world).await;
    world.broker.kill().unwrap();
    let started = std::time::Instant::now();
    let before = customers.ledger().commands.len();
    while customers.ledger().commands.len() < before + dose(2000) {
        customers.more(Orders, 100).await;
    }
    let writes = customers.ledger().commands.len() - before;
    tell(&format!("{writes} writes in {:?}", started.elapsed()));
    world.broker.restart().unwrap();
    heals(world, customers, load, &[]).await;
}

/// A broker whose disk was full does not recover without a restart, even when there is room again.
/// After the restart it has everything that it acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_disk_is_full_stops_no_write_and_loses_nothing() {
    let Some(disk) = Mount::tmpfs("24m") else {
        return;
    };
    let binary = broker::find(&|_| {}).unwrap();
    let broker = Broker::start(&binary, Options::new(disk.path())).unwrap();
    let mut world = World::on([broker], tempfile::TempDir::new().unwrap()).empty();
    world.run_all().await;
    let (customers, load) = under_load(&world).await;
    world.caught_up().await;
    disk.fill();
    says(&world.client(Orders), "relay", "degraded", "").await;
    customers.more(Orders, dose(100)).await;
    disk.resize("256m");
    world.broker.restart().unwrap();
    heals(world, customers, load, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_put_back_from_an_old_copy_stops_the_relay_until_the_right_one_is_there() {
    let mut world = World::start().await;
    let customers = Customers::of(&world).await;
    let (database, folder) = (world.database(Orders), world.folder().to_owned());
    world.stop(Orders).await;
    std::fs::copy(&database, folder.join("old.db")).unwrap();
    world.run(Orders).await;
    customers.send_some(Orders, 20).await;
    oracle::stream_agrees(&world, Orders, &customers.ledger()).await;
    let before = oracle::stored(&world, Orders).await;

    world.stop(Orders).await;
    std::fs::rename(&database, folder.join("right.db")).unwrap();
    std::fs::copy(folder.join("old.db"), &database).unwrap();
    world.run(Orders).await;
    let orders = world.client(Orders);
    let why = says(&orders, "relay", "failed", "the stream is ahead").await;
    assert!(why.contains("put back the newest copy"), "{why}");
    assert_eq!(orders.get("/readyz").await.status, 503);
    // Enough writes to pass the end of the stream.
    let placed = customers.ledger().commands;
    let placed = placed.iter().find(|command| command.service == Orders);
    let body = json!({ "user_id": placed.unwrap().body["user_id"], "product_ids": placed.unwrap().body["product_ids"] });
    for _ in 0..30 {
        orders.create("/orders", &body).await;
    }
    says(&orders, "relay", "failed", "another in the database").await;
    assert_eq!(
        oracle::stored(&world, Orders).await,
        before,
        "nothing is overwritten"
    );
    let stopped = logged(&world, Orders, "ERROR", "relay stopped");
    assert_eq!(stopped.len(), 2, "one for each contradiction: {stopped:?}");

    world.stop(Orders).await;
    std::fs::rename(folder.join("right.db"), &database).unwrap();
    world.run(Orders).await;
    says(&world.client(Orders), "relay", "ok", "").await;
    customers.send_some(Orders, 10).await;
    oracle::all_agree(&mut world, &customers).await;
    // It may have asked meanwhile, when it was really ahead of the old copy.
    let errors = logged(&world, Purchases, "ERROR", "");
    let known = "projection and source contradict each other";
    assert!(
        errors
            .iter()
            .all(|line| line["message"] == known && line["source"] == "orders"),
        "{errors:?}"
    );
    world.finish().await;
}
