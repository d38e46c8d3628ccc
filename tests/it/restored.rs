//! Backups, and what is done with them: as `docs/operations.md` has it.

use async_nats::jetstream;
use cli::Exit;
use e2e::faults::says;
use e2e::load::{Customers, Mix};
use e2e::operator::verify;
use e2e::world::{after, titles};
use e2e::{Service, World, eventually};
use headwater::operator::FoldState;
use rusqlite::Connection;
use serde_json::json;

/// A copy of a database that is in use.
fn back_up(world: &World, service: Service) -> std::path::PathBuf {
    let copy = world.folder().join(format!("{}.backup", service.name()));
    let database = Connection::open(world.database(service)).unwrap();
    let text = copy.to_str().unwrap();
    database.execute("VACUUM INTO ?1", [text]).unwrap();
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_put_back_from_an_old_copy_begins_a_new_life_that_every_copy_follows() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let (mug, tent, lamp) = (
        world.product("Mug").await,
        world.product("Tent").await,
        world.product("Lamp").await,
    );
    world.order(&ada, &[&mug]).await;
    let copy = back_up(&world, Service::Orders);
    for lost in 2..=4 {
        let lost_order = world.order(&ada, &[&tent]).await;
        assert_eq!(lost_order.position(), format!("orders:{lost}"));
    }
    assert_eq!(world.titles(&ada.id()).await, ["Mug", "Tent"]);

    // There is no newer copy: what came after it is lost.
    world.stop(Service::Orders).await;
    let database = world.database(Service::Orders);
    std::fs::rename(&copy, &database).unwrap();
    world.run(Service::Orders).await;
    let orders = world.client(Service::Orders);
    let advice = says(&orders, "relay", "failed", "the stream is ahead").await;
    assert!(advice.contains("docs/operations.md"), "{advice}");

    world.stop(Service::Orders).await;
    let new_life = "UPDATE headwater_database SET epoch = lower(hex(randomblob(16)))";
    let begun = Connection::open(&database).unwrap().execute(new_life, []);
    assert_eq!(begun.unwrap(), 1);
    let broker = jetstream::new(world.nats().await);
    broker.delete_stream("ORDERS").await.unwrap();
    // One that was begun in the old life does not wait for positions that never come.
    let begun = world.ask(Service::Purchases, "verify", &json!({})).await;
    assert_eq!(begun.unwrap()["state"], "folding");
    world.run(Service::Orders).await;

    // Its second event has the place of the one that was lost, and is no less an event.
    let next = world.order(&ada, &[&lamp]).await;
    assert_eq!(next.position(), "orders:2");
    eventually("the order to be seen", || async {
        let shown = world.purchases(&ada.id(), &after(&[&next])).await;
        let shown = titles(&shown.json);
        if shown.contains(&"Lamp".to_owned()) {
            Ok(())
        } else {
            Err(shown)
        }
    })
    .await;
    let rebuilt = world.fold("rebuild").await;
    assert_eq!(rebuilt.state, FoldState::Done, "{rebuilt:?}");
    assert_eq!(
        world.titles(&ada.id()).await,
        ["Lamp", "Mug"],
        "the lost one is gone"
    );
    let report = verify(&world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_database_that_is_written_to_is_whole() {
    let world = World::start().await;
    let customers = Customers::of(&world).await;
    let load = customers.begin(Mix {
        clients: 8,
        ..Mix::on(&[Service::Orders])
    });
    for copies in 0..3 {
        customers.more(Service::Orders, 30).await;
        let copy = Connection::open(back_up(&world, Service::Orders)).unwrap();
        let text = |sql: &str| {
            copy.query_row(sql, [], |row| row.get::<_, String>(0))
                .unwrap()
        };
        assert_eq!(text("PRAGMA integrity_check"), "ok");
        let events = "SELECT count(*) || ' of ' || max(position) FROM headwater_outbox";
        let orders = "SELECT count(*) || ' of ' || max(position) FROM placed_order";
        assert_eq!(
            text(events),
            text(orders),
            "an event an order, in copy {copies}"
        );
        std::fs::remove_file(copy.path().unwrap()).unwrap();
    }
    load.end().await;
    world.finish().await;
}
