//! Backup and restore, as in `docs/operations.md`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_nats::jetstream;
use clap::Parser as _;
use cli::{Cli, Exit};
use e2e::faults::says;
use e2e::load::{Customers, Mix};
use e2e::operator::verify;
use e2e::world::{after, titles};
use e2e::{Service, World, eventually, program};
use headwater::Clock;
use headwater::backup::{self, Facts, RestoreTarget};
use headwater::operator::RebuildState;
use rusqlite::Connection;
use serde_json::json;

/// A copy of a database that is in use.
fn back_up(world: &World, service: Service) -> PathBuf {
    let folder = world.folder().join("backup");
    let (database, clock) = (world.database(service), Clock::system());
    let made = backup::make(&database, &folder, &clock, &backup::unwatched());
    made.unwrap().file
}

/// Runs the tool on the databases of the world.
async fn tool(world: &World, args: &[&str]) -> Exit {
    let (url, data) = (world.nats_url(), world.database(Service::Orders));
    let data = data.parent().unwrap().to_str().unwrap();
    let own = ["--data", data, "--server", &url, "--no-context"];
    let line = ["headwater"].iter().chain(args).chain(&own);
    cli::run(Cli::try_parse_from(line).unwrap()).await
}

/// The question of `headwater restore` for `copy`, unanswered.
async fn asks(world: &World, copy: &Path) -> String {
    let database = world.database(Service::Orders);
    let output = tokio::process::Command::new(program("headwater"))
        .args(["restore", "orders"])
        .arg(copy)
        .args(["--no-context", "--server", &world.nats_url(), "--data"])
        .arg(database.parent().unwrap())
        .stdin(Stdio::null())
        .output();
    let output = output.await.unwrap();
    let question = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "without an answer: {question}"
    );
    question
}

/// Restores `copy` while `orders` is stopped, and starts `orders` when the tool waits for that.
async fn restore(world: &mut World, copy: &Path) -> Exit {
    let database = world.database(Service::Orders);
    let before = replaced(world).len();
    let there = || async {
        let is_there = replaced(world).len() > before && RestoreTarget::take(&database).is_ok();
        if is_there {
            Ok(())
        } else {
            Err("nothing was replaced")
        }
    };
    let args = ["restore", "orders", copy.to_str().unwrap(), "--yes"];
    let mut tool = Box::pin(tool(world, &args));
    tokio::select! {
        exit = &mut tool => return exit,
        () = eventually("the copy to be in place", there) => {}
    }
    let orders = world.spawn(Service::Orders, |_| {});
    let exit = tool.await;
    drop(orders);
    world.run(Service::Orders).await;
    exit
}

/// The files that were moved aside.
fn replaced(world: &World) -> Vec<PathBuf> {
    let database = world.database(Service::Orders);
    let entries = std::fs::read_dir(database.parent().unwrap()).unwrap();
    let files = entries.map(|entry| entry.unwrap().path());
    let of = format!("{}.replaced-", database.display());
    files
        .filter(|file| {
            let name = file.display().to_string();
            name.starts_with(&of) && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_the_service_made_over_nats_is_restored() {
    let mut world = World::start().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    world.order(&ada, &[&mug]).await;
    let orders = Service::Orders;
    let begun = world.ask(orders, "backup", &json!({})).await;
    assert!(begun.is_ok(), "{begun:?}");
    let copy = eventually("the copy to be made", || async {
        let status = world.ask(orders, "backup.status", &json!({})).await?;
        match &status["state"] {
            state if state == "done" => Ok(status["copy"].clone()),
            _ => Err(status.to_string()),
        }
    })
    .await;
    let file = PathBuf::from(copy["file"].as_str().unwrap());
    let facts = Facts::of(&world.database(orders)).unwrap();
    assert_eq!(
        copy["position"], 1,
        "the position of the newest event: {copy}"
    );
    assert_eq!(copy["epoch"], facts.epoch);
    assert!(backup::check_digest(&file).unwrap(), "its digest");

    world.stop(orders).await;
    std::fs::write(world.database(orders), "no database").unwrap();
    assert_eq!(restore(&mut world, &file).await, Exit::Done);
    assert_eq!(Facts::of(&world.database(orders)).unwrap(), facts);
    world.order(&ada, &[&mug]).await;
    let refused = world.ask(Service::Purchases, "backup", &json!({})).await;
    let why = refused.unwrap_err();
    assert!(why.contains("headwater rebuild purchases"), "{why}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_puts_back_the_newest_copy_and_lets_an_older_one_begin_a_new_life() {
    let mut world = World::start().await;
    let (ada, mug, tent) = (
        world.user("ada").await,
        world.product("Mug").await,
        world.product("Tent").await,
    );
    world.order(&ada, &[&mug]).await;
    let older = back_up(&world, Service::Orders);
    let epoch = Facts::of(&older).unwrap().epoch;
    world.order(&ada, &[&tent]).await;
    assert_eq!(world.titles(&ada.id()).await, ["Mug", "Tent"]);
    let newest = back_up(&world, Service::Orders);

    let log = world.database(Service::Orders).with_extension("db-wal");
    let kept = std::fs::read(&log).unwrap();
    world.stop(Service::Orders).await;
    std::fs::write(world.database(Service::Orders), "no database").unwrap();
    world.spawn(Service::Orders, |_| {}).ended();
    assert_eq!(restore(&mut world, &newest).await, Exit::Done);
    let now = Facts::of(&world.database(Service::Orders)).unwrap();
    assert_eq!((now.head, &now.epoch), (2, &epoch), "another epoch");
    assert_eq!(replaced(&world).len(), 1);
    assert_eq!(std::fs::read(&replaced(&world)[0]).unwrap(), b"no database");

    world.stop(Service::Orders).await;
    // The files after a kill, with both events.
    std::fs::write(&log, kept).unwrap();
    assert_eq!(restore(&mut world, &older).await, Exit::Done);
    let now = Facts::of(&world.database(Service::Orders)).unwrap();
    assert_eq!(now.head, 1);
    assert_ne!(now.epoch, epoch, "the same epoch");
    assert_eq!(
        world.titles(&ada.id()).await,
        ["Mug"],
        "the lost order is still there"
    );
    let next = world.order(&ada, &[&tent]).await;
    assert_eq!(next.position(), "orders:2");
    let report = verify(&world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");

    // The events of the new epoch are lost as well, with or without the database that has them.
    let question = asks(&world, &older).await;
    let lost = "1 events of another epoch than the copy's, all that it has after orders:1\n";
    assert!(question.contains(lost), "{question}");
    let question = asks(&world, &newest).await;
    assert!(question.contains(lost), "{question}");
    world.stop(Service::Orders).await;
    let (database, away) = (world.database(Service::Orders), world.folder().join("away"));
    std::fs::rename(&database, &away).unwrap();
    let question = asks(&world, &newest).await;
    let lost = "2 events of another epoch than the copy's, all that it has after orders:0\n";
    assert!(question.contains(lost), "{question}");
    std::fs::rename(&away, &database).unwrap();
    world.run(Service::Orders).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_copy_of_a_stopped_service_is_not_put_in_its_place() {
    let mut world = World::start().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    world.order(&ada, &[&mug]).await;
    let folder = world.folder().join("backup");
    let to = folder.to_str().unwrap();
    assert_eq!(
        tool(&world, &["backup", "--to", to, "--keep", "1"]).await,
        Exit::Done
    );
    let mut copies: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    copies.sort();
    let of = |name: &str| {
        copies
            .iter()
            .find(|it| it.to_str().unwrap().contains(name))
            .unwrap()
            .clone()
    };
    assert_eq!(
        copies.len(),
        6,
        "not a copy and a digest per source: {copies:?}"
    );
    let (orders, users) = (of("/orders-"), of("/users-"));

    let refused = async |world: &World, copy: &Path| {
        let copy = copy.to_str().unwrap();
        assert_eq!(
            tool(world, &["restore", "orders", copy, "--yes"]).await,
            Exit::Failed
        );
        assert!(replaced(world).is_empty());
    };
    refused(&world, &orders).await; // it runs
    world.order(&ada, &[&mug]).await;
    world.stop(Service::Orders).await;
    let line = ["restore", "orders", orders.to_str().unwrap()];
    assert_eq!(tool(&world, &line).await, Exit::Usage, "without an answer");
    refused(&world, &users).await;
    let mut bytes = std::fs::read(&orders).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&orders, &bytes).unwrap();
    refused(&world, &orders).await; // its digest
    std::fs::remove_file(orders.with_extension("db.sha256")).unwrap();
    bytes.truncate(middle);
    std::fs::write(&orders, &bytes).unwrap();
    refused(&world, &orders).await; // its structure
    world.run(Service::Orders).await;
    let next = world.order(&ada, &[&mug]).await;
    assert_eq!(next.position(), "orders:3");
    world.finish().await;
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

    // There is no newer copy: later events are lost.
    world.stop(Service::Orders).await;
    let database = world.database(Service::Orders);
    std::fs::rename(&copy, &database).unwrap();
    world.run(Service::Orders).await;
    let orders = world.client(Service::Orders);
    let advice = says(&orders, "relay", "failed", "the stream is ahead").await;
    assert!(advice.contains("docs/operations.md"), "{advice}");

    world.stop(Service::Orders).await;
    let new_epoch = "UPDATE headwater_database SET epoch = lower(hex(randomblob(16)))";
    let begun = Connection::open(&database).unwrap().execute(new_epoch, []);
    assert_eq!(begun.unwrap(), 1);
    let broker = jetstream::new(world.nats().await);
    broker.delete_stream("ORDERS").await.unwrap();
    // A rebuild started in the old epoch does not wait for positions that never come.
    let begun = world.ask(Service::Purchases, "verify", &json!({})).await;
    assert_eq!(begun.unwrap()["state"], "folding");
    world.run(Service::Orders).await;

    // Its second event has the position of the lost one and still counts as an event.
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
    let rebuilt = world.rebuild("rebuild").await;
    assert_eq!(rebuilt.state, RebuildState::Done, "{rebuilt:?}");
    assert_eq!(
        world.titles(&ada.id()).await,
        ["Lamp", "Mug"],
        "the lost order is still there"
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
            "one event per order, in copy {copies}"
        );
        std::fs::remove_file(copy.path().unwrap()).unwrap();
    }
    load.end().await;
    world.finish().await;
}
