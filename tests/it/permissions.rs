//! Each user has its own account on the broker, as in `deploy/nats/accounts.conf`. Everything that
//! a user needs works, and nothing else does, neither asked for directly nor as a reply subject.

use std::collections::BTreeSet;

use async_nats::jetstream;
use cli::Exit;
use e2e::faults::logged;
use e2e::load::{Customers, Mix};
use e2e::process::lines;
use e2e::{PATIENCE, Service, World, eventually, operator, oracle};
use headwater::operator::RebuildState;
use headwater::projection::Consumer;
use headwater::schema;
use serde_json::{Value, json};

use Service::{Composition, Orders, Purchases, RequestReply};

mod attack;
mod subjects;

/// The shop's projections and their sources.
const PROJECTIONS: [(&str, &[Service]); 2] = [
    ("purchases", &Service::SOURCES),
    ("orders-catalogue", &[Service::Users, Service::Products]),
];

/// The connection limit of an account.
const CONNECTIONS: usize = 64;

/// Provisions streams whose events can be deleted.
async fn provision_softly(world: &World) {
    world.make_soft_streams().await;
    let jetstream = jetstream::new(world.nats().await);
    jetstream.create_stream(schema::bucket(1)).await.unwrap();
    for (projection, sources) in PROJECTIONS {
        for source in sources {
            let stream = world.stream(*source).await;
            for consumer in Consumer::all(projection, source.name()) {
                stream.create_consumer(consumer.settings()).await.unwrap();
            }
        }
    }
}

/// Everything that services do: writes, rebuilds, gaps, request-reply, and admin requests.
#[tokio::test(flavor = "multi_thread")]
async fn every_service_may_do_all_that_it_needs() {
    let (mut world, _) = World::with_accounts();
    provision_softly(&world).await;
    world.run_all().await;
    for style in [Composition, RequestReply] {
        world.run(style).await;
    }
    let customers = Customers::of(&world).await;
    let load = customers.begin(Mix::on(&Service::SOURCES));
    customers.more(Orders, 20).await;
    load.end().await;
    for source in Service::SOURCES {
        oracle::stream_agrees(&world, source, &customers.ledger()).await;
    }
    let order = customers.ledger().of(Orders).into_values().next().cloned();
    let user = order.unwrap().body["user_id"].as_str().unwrap().to_owned();
    for style in Service::STYLES {
        eventually("an answer in every style", || async {
            let reply = world.purchases_by(style, &user, "").await;
            if reply.status == 200 {
                Ok(())
            } else {
                Err(reply.text)
            }
        })
        .await;
    }
    for style in [Purchases, RequestReply] {
        let client = world.client(style);
        eventually("a name", || async {
            let page = client.get(&format!("/users/{user}")).await;
            let is_named = page.status == 200 && !page.text.contains("Names are missing");
            is_named.then_some(()).ok_or(page.text)
        })
        .await;
    }
    for endpoint in ["verify", "rebuild"] {
        for service in [Orders, Purchases] {
            let rebuilt = world.rebuild_of(service, endpoint).await;
            assert_eq!(
                rebuilt.state,
                RebuildState::Done,
                "{service:?}: {rebuilt:?}"
            );
        }
    }
    let nothing = json!({});
    let letters = world.ask(Purchases, "dead-letters.list", &nothing).await;
    assert!(letters.is_ok(), "{letters:?}");
    let report = operator::verify(&world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");
    fetches_a_gap(&mut world, &customers).await;
    nobody_was_refused(&world);
    world.finish().await;
}

/// A projection fetches a gap from the outbox of its source.
async fn fetches_a_gap(world: &mut World, customers: &Customers) {
    world.stop(Purchases).await;
    customers.send_some(Orders, 3).await;
    oracle::stream_agrees(world, Orders, &customers.ledger()).await;
    let stream = world.stream(Orders).await;
    let last = stream.cached_info().state.last_sequence;
    assert!(stream.delete_message(last - 1).await.unwrap());
    world.run(Purchases).await;
    world.caught_up().await;
    let fetched = logged(world, Purchases, "WARN", "fetched from the outbox");
    assert_eq!(fetched.len(), 1, "{fetched:?}");
}

fn nobody_was_refused(world: &World) {
    for service in [Service::ALL.as_slice(), &[Composition, RequestReply]].concat() {
        let log = world.log(service);
        let refused: Vec<_> = lines(&log)
            .filter(|line| line["level"] == "ERROR")
            .collect();
        assert!(refused.is_empty(), "{}: {refused:#?}", service.name());
    }
}

/// Services may not create streams or consumers. They report who does, and continue once it is
/// done, also after the broker's disk was lost.
#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_what_the_operator_makes() {
    let (mut world, passwords) = World::with_accounts();
    world.run_all().await;
    says_who_makes_it(&world).await;
    passwords.provision(&world.nats_url(), 1).await;
    world.in_touch().await;
    let customers = Customers::of(&world).await;
    customers.send_some(Orders, 3).await;
    world.caught_up().await;

    world.broker.stop().unwrap();
    std::fs::remove_dir_all(world.broker.store().join("jetstream")).unwrap();
    world.broker.restart().unwrap();
    says_who_makes_it(&world).await;
    passwords.provision(&world.nats_url(), 1).await;
    customers.send_some(Orders, 3).await;
    world.caught_up().await;
    for source in Service::SOURCES {
        oracle::stream_agrees(&world, source, &customers.ledger()).await;
    }
    world.finish().await;
}

async fn says_who_makes_it(world: &World) {
    for service in Service::ALL {
        let client = world.client(service);
        eventually("what to do", || async {
            let parts = client.get("/readyz?verbose").await.text;
            let is_said = parts.contains("`headwater provision");
            if is_said { Ok(()) } else { Err(parts) }
        })
        .await;
    }
}

/// An event with neither headers nor payload ends a pull through an import. Readers continue after
/// it, even if it is the last event that they have read.
#[tokio::test(flavor = "multi_thread")]
async fn empty_events_by_hand_hold_up_no_reader() {
    let (mut world, passwords) = World::with_accounts();
    passwords.provision(&world.nats_url(), 1).await;
    world.run_all().await;
    world.in_touch().await;
    let customers = Customers::of(&world).await;
    let operator = world.nats().await;
    for empty in 1..=3 {
        for source in Service::SOURCES {
            for _ in 0..empty {
                let subject = format!("{}.v1.note", source.name());
                operator.publish(subject, "".into()).await.unwrap();
            }
        }
        operator.flush().await.unwrap();
        customers.send_some(Orders, 3).await;
        world.caught_up().await;
        world.stop(Purchases).await;
        world.run(Purchases).await;
        customers.send_some(Orders, 3).await;
        world.caught_up().await;
    }
    let letters = world.ask(Purchases, "dead-letters.list", &json!({})).await;
    let letters = letters.unwrap()["letters"].as_array().unwrap().len();
    assert_eq!(letters, 18, "each is a dead letter");
    world.abandon();
}

/// A source's new version of an event passes its account, the viewer's, and the consumers of its
/// readers, which wait for their upgrade.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_of_an_event_needs_no_new_permission() {
    const SUBJECT: &str = "orders.v2.placed.1";
    let (mut world, passwords) = World::with_accounts();
    passwords.provision(&world.nats_url(), 1).await;
    world.run_all().await;
    world.in_touch().await;
    let urls = world.nats_url();
    let viewer = passwords.connect(&urls, "viewer").await;
    let mut events = viewer.subscribe("orders.>").await.unwrap();
    viewer.flush().await.unwrap();
    let orders = passwords.connect(&urls, "orders").await;
    let stored = orders.request(SUBJECT, "new".into()).await.unwrap();
    let stored: Value = serde_json::from_slice(&stored.payload).unwrap();
    assert_eq!(stored["stream"], "ORDERS", "{stored}");
    let event = futures_util::StreamExt::next(&mut events);
    let event = tokio::time::timeout(PATIENCE, event).await;
    let event = event.expect("the viewer hears it").unwrap();
    assert_eq!(&*event.subject, SUBJECT);
    eventually("purchases waits for its upgrade", async || {
        let parts = world.admin(Purchases).get("/readyz?verbose").await.text;
        let why = "orders.v2.placed is newer than this service knows: upgrade purchases";
        if parts.contains(why) {
            Ok(())
        } else {
            Err(parts)
        }
    })
    .await;
    world.abandon();
}

/// One user cannot take all connections of the broker.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_has_no_more_connections_than_its_share() {
    let (mut world, passwords) = World::with_accounts();
    let url = world.nats_url();
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(passwords.connect(&url, "viewer").await);
    }
    assert!(passwords.try_connect(&url, "viewer").await.is_err());
    assert!(passwords.try_connect(&url, "operator").await.is_ok());
    world.abandon();
}

/// If the operator restores a stream from its outbox, its consumers are restored, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_stream_has_its_consumers_again() {
    let (mut world, passwords) = World::with_accounts();
    passwords.provision(&world.nats_url(), 1).await;
    world.run_all().await;
    world.in_touch().await;
    let customers = Customers::of(&world).await;
    customers.send_some(Orders, 3).await;
    world.caught_up().await;
    let args = ["stream", "restore", "orders", "--yes"];
    let ended = passwords.tool(&world.nats_url(), "operator", &args).await;
    assert_eq!(ended, Exit::Done);
    customers.send_some(Orders, 3).await;
    world.caught_up().await;
    world.finish().await;
}

/// Asserts that the shipped plan has everything that the services use, and no more.
async fn assert_planned(world: &World) {
    let plan = include_str!("../../deploy/nats/plan.json");
    let plan: Value = serde_json::from_str(plan).unwrap();
    let mut running = serde_json::Map::new();
    for service in Service::ALL {
        let status = world.ask(service, "status", &json!({})).await.unwrap();
        for projection in status["projections"].as_array().unwrap() {
            let sources = projection["positions"].as_object().unwrap().keys();
            let mut sources: Vec<&String> = sources.collect();
            sources.sort();
            running.insert(
                projection["name"].as_str().unwrap().to_owned(),
                json!(sources),
            );
        }
    }
    let mut planned = plan["projections"].clone();
    for sources in planned.as_object_mut().unwrap().values_mut() {
        sources
            .as_array_mut()
            .unwrap()
            .sort_by_key(Value::to_string);
    }
    assert_eq!(planned, Value::Object(running));
    let sources = plan["sources"].as_array().unwrap().iter();
    let sources: BTreeSet<&str> = sources.map(|source| source.as_str().unwrap()).collect();
    let expected = Service::SOURCES.map(Service::name);
    assert_eq!(sources, BTreeSet::from(expected));
}

/// The viewer's rights that the documents promise.
#[tokio::test(flavor = "multi_thread")]
async fn the_viewer_sees_all_that_there_is_to_see() {
    let (mut world, passwords) = World::with_accounts();
    passwords.provision(&world.nats_url(), 1).await;
    world.run_all().await;
    world.in_touch().await;
    assert_planned(&world).await;
    let urls = world.nats_url();
    let viewer = passwords.connect(&urls, "viewer").await;
    let mut events = viewer.subscribe("orders.>").await.unwrap();
    viewer.flush().await.unwrap();
    let customers = Customers::of(&world).await;
    customers.send_some(Orders, 3).await;
    world.caught_up().await;
    let event = futures_util::StreamExt::next(&mut events).await.unwrap();
    assert!(event.subject.starts_with("orders.v1.placed."));
    let commands: [&[&str]; 8] = [
        &["status"],
        &["verify"],
        &["tail", "--no-follow", "--last", "3"],
        &["tail", "orders", "--from", "1", "--count", "2"],
        &["check"],
        &["projection", "list"],
        &["dead-letter", "list"],
        &["provision", "--dry-run"],
    ];
    for args in commands {
        let ended = passwords.tool(&urls, "viewer", args).await;
        assert_eq!(ended, Exit::Done, "{args:?}");
    }
    let jetstream = jetstream::new(viewer.clone());
    let bucket = jetstream.get_key_value(schema::BUCKET).await.unwrap();
    assert!(bucket.get("orders").await.unwrap().is_some());
    for service in Service::ALL {
        let subject = format!("$SRV.INFO.{}", service.name());
        let info = viewer.request(subject, "".into()).await.unwrap();
        assert!(!info.payload.is_empty(), "{}", service.name());
    }
    world.finish().await;
}
