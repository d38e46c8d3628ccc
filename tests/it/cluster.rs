//! Three brokers, each with a replica of every stream: under steady writes, one goes away, then
//! two.
//!
//! Writes and reads need no broker. The tests show that events flow with one broker away, wait with
//! two away, and are all there afterwards, once and in order.

use std::time::{Duration, Instant};

use async_nats::header::{HeaderName, NATS_BATCH_SEQUENCE, NATS_EXPECTED_LAST_MESSAGE_ID};
use async_nats::jetstream;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use cli::Exit;
use e2e::cluster::Watch;
use e2e::faults::{logged, metric, tell};
use e2e::load::{Customers, Load, Mix};
use e2e::process::lines;
use e2e::{Service, World, eventually, eventually_within, operator, oracle};
use headwater::operator::RebuildState;

use Service::{Orders, Products, Purchases, Users};

/// About 60 writes per second, on all sources.
const STEADY: Mix = Mix {
    clients: 6,
    pause: Duration::from_millis(80),
    ..Mix::on(&Service::SOURCES)
};

/// Bursts, so that a relay has several new events to publish most of the time.
const BURSTS: Mix = Mix {
    clients: 24,
    pause: Duration::from_millis(120),
    ..STEADY
};

/// How often a reader is killed, and how long the next one may take.
const KILLS: usize = 50;
const CATCHES_UP_WITHIN: Duration = Duration::from_secs(5);

/// All services on three brokers, and a load.
async fn under_load() -> (World, Customers, Load) {
    under_load_of(STEADY).await
}

async fn under_load_of(mix: Mix) -> (World, Customers, Load) {
    loaded(World::on_three_brokers().empty(), mix).await
}

async fn loaded(mut world: World, mix: Mix) -> (World, Customers, Load) {
    world.run_all().await;
    let customers = Customers::of(&world).await;
    for source in Service::SOURCES {
        has_copies(&world, source, 3).await;
    }
    world.caught_up().await;
    let load = customers.begin(mix);
    customers.more(Orders, 20).await;
    (world, customers, load)
}

async fn has_copies(world: &World, source: Service, count: usize) {
    eventually("copies of the stream", || async {
        let now = world.copies_of(source).await;
        if now == count { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Waits until new writes reach `purchases`.
async fn events_go_on(world: &World, customers: &Customers) {
    customers.more(Orders, 10).await;
    world.caught_up().await;
}

/// Asserts that every write was accepted the first time, and that everything agrees.
async fn agrees(world: World, customers: Customers, load: Load) {
    load.end().await;
    nothing_was_taken_for_lost(&world).await;
    agrees_at_last(world, customers).await;
}

/// Asserts that everything agrees in the end, whichever way the events took.
async fn agrees_at_last(mut world: World, customers: Customers) {
    customers.ledger().assert_taken_at_once();
    for source in Service::SOURCES {
        has_copies(&world, source, 3).await;
    }
    oracle::all_agree(&mut world, &customers).await;
    let report = operator::verify(&world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");
    for service in Service::ALL {
        let log = world.log(service);
        let errors: Vec<_> = lines(&log)
            .filter(|line| line["level"] == "ERROR")
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", service.name());
    }
    world.finish().await;
}

/// Asserts that no relay republished events that it thought lost, and that no event came from an
/// outbox.
async fn nothing_was_taken_for_lost(world: &World) {
    for source in Service::SOURCES {
        let name = source.name();
        let republished = format!("headwater_relay_republished_total{{source=\"{name}\"}}");
        let again = metric(&world.admin(source), &republished).await;
        assert_eq!(again.to_string(), "0", "published again by {name}");
        let labels = format!("projection=\"purchases\",source=\"{name}\"");
        let fetched = format!("headwater_projection_gap_events_total{{{labels}}}");
        let fetched = metric(&world.admin(Purchases), &fetched).await;
        assert_eq!(fetched.to_string(), "0", "fetched from {name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_brokers_killed_loses_nothing() {
    let (mut world, customers, load) = under_load().await;
    let leaders = [world.leader_of(Orders).await, world.leader_of_all().await];
    let follower = (0..3).find(|node| !leaders.contains(node)).unwrap();
    let watch = Watch::begin(&world, &customers);
    world.node(follower).kill().unwrap();
    events_go_on(&world, &customers).await;
    tell(&format!(
        "one killed that leads neither the cluster nor ORDERS: {}",
        watch.end().await
    ));
    world.node(follower).restart().unwrap();
    world.wait_healthy();
    agrees(world, customers, load).await;
}

/// A rebuild continues and swaps, too.
#[tokio::test(flavor = "multi_thread")]
async fn leaders_that_are_killed_are_followed_by_others() {
    let (mut world, customers, load) = under_load().await;
    let created = world.stream(Orders).await.cached_info().created;
    for of_all in [false, true] {
        let leader = if of_all {
            world.leader_of_all().await
        } else {
            world.leader_of(Orders).await
        };
        let watch = Watch::begin(&world, &customers);
        world.node(leader).kill().unwrap();
        events_go_on(&world, &customers).await;
        let what = if of_all { "the cluster" } else { "a stream" };
        tell(&format!(
            "the leader of {what} killed: {}",
            watch.end().await
        ));
        let rebuilt = world.rebuild("rebuild").await;
        assert_eq!(rebuilt.state, RebuildState::Done, "{rebuilt:?}");
        world.node(leader).restart().unwrap();
        world.wait_healthy();
    }
    // A projection compares this time to see that its checkpoint belongs to this stream.
    assert_eq!(world.stream(Orders).await.cached_info().created, created);
    agrees(world, customers, load).await;
}

/// A hanging broker closes no connection, and its clients are not notified.
///
/// When it continues, it may get what it missed as a snapshot without the ids of those events. So
/// no publish may ask it to check an id (ADR 9). The failure itself is rare; this test checks that
/// no publish asks.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hangs_is_left_for_others() {
    let (mut world, customers, load) = under_load_of(BURSTS).await;
    let leader = world.leader_of(Orders).await;
    let watch = Watch::begin(&world, &customers);
    world.node(leader).pause().unwrap();
    customers.more(Orders, 10).await;
    positions_come(&world, &customers).await;
    tell(&format!("a leader hangs: {}", watch.end().await));
    world.node(leader).resume().unwrap();
    world.wait_healthy();
    several_at_once_and_no_id_checked(&world).await;
    agrees(world, customers, load).await;
}

async fn several_at_once_and_no_id_checked(world: &World) {
    for source in Service::SOURCES {
        let events = oracle::stored(world, source).await;
        let with = |name: HeaderName| {
            events
                .iter()
                .filter_map(move |event| event.headers.get(name.clone()))
        };
        let asked = with(NATS_EXPECTED_LAST_MESSAGE_ID).next();
        assert_eq!(asked, None, "an id was to be checked");
        let second = with(NATS_BATCH_SEQUENCE).find(|number| number.as_str() == "2");
        assert!(
            second.is_some(),
            "{} published one by one only",
            source.name()
        );
    }
}

/// What a client with publish rights can do to a stream, and how the operator repairs it: see
/// `docs/operations.md`. If no replica gives up, this server is better than those of ADR 9.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_copies_gave_up_is_deleted_and_filled_again() {
    let (mut world, customers, load) = under_load().await;
    let jetstream = jetstream::new(world.nats().await);
    let message = PublishMessage::build().expected_last_message_id("nobody's");
    let sent = jetstream.send_publish("users.v1.nothing.0", message).await;
    let refused = sent.unwrap().await.unwrap_err();
    assert_eq!(refused.kind(), PublishErrorKind::WrongLastMessageId);
    eventually("its replicas to give up", || async {
        let stream = jetstream.get_stream("USERS").await;
        let stream = stream.map_err(|error| error.to_string())?;
        let cluster = stream.cached_info().cluster.clone().unwrap();
        cluster.leader.map_or(Ok(()), Err)
    })
    .await;
    customers.more(Users, 10).await;
    jetstream.delete_stream("USERS").await.unwrap();
    world.wait_healthy();
    events_go_on(&world, &customers).await;
    load.end().await;
    customers.ledger().assert_taken_at_once();
    oracle::all_agree(&mut world, &customers).await;
    let report = operator::verify(&world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");
    world.finish().await;
}

/// Waits until `purchases` shows all writes so far; asks no other service.
async fn positions_come(world: &World, customers: &Customers) {
    let ledger = customers.ledger();
    let last = |source| ledger.of(source).into_keys().last().unwrap_or(0);
    let after = Service::SOURCES.map(|source| format!("{}:{}", source.name(), last(source)));
    let user = ledger.of(Users).into_values().next().unwrap().id.clone();
    eventually("purchases to have it", || async {
        let reply = world.purchases(&user, &after.join(",")).await;
        if reply.status == 200 {
            Ok(())
        } else {
            Err(reply.text)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_two_of_three_killed_writes_go_on_and_are_drained_in_order() {
    let (mut world, customers, load) = under_load().await;
    let watch = Watch::begin(&world, &customers);
    for node in [0, 1] {
        world.node(node).kill().unwrap();
    }
    let before = customers.ledger().commands.len();
    for source in Service::SOURCES {
        customers.more(source, 100).await;
    }
    let writes = customers.ledger().commands.len() - before;
    for node in [0, 1] {
        world.node(node).restart().unwrap();
    }
    world.wait_healthy();
    events_go_on(&world, &customers).await;
    let outage = watch.end().await;
    tell(&format!("two killed, {writes} writes meanwhile: {outage}"));
    agrees(world, customers, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_restarted_one_by_one_under_writes_lose_nothing() {
    let (mut world, customers, load) = under_load().await;
    for node in 0..3 {
        let watch = Watch::begin(&world, &customers);
        let status = world.node(node).retire().unwrap();
        assert!(status.success(), "{status}");
        world.node(node).restart().unwrap();
        world.wait_healthy();
        events_go_on(&world, &customers).await;
        tell(&format!("{} restarted: {}", node + 1, watch.end().await));
    }
    agrees(world, customers, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_robbed_of_its_data_gets_them_from_the_others() {
    let (mut world, customers, load) = under_load().await;
    let robbed = world.leader_of(Products).await;
    world.node(robbed).kill().unwrap();
    let data = world.node(robbed).store().join("jetstream");
    std::fs::remove_dir_all(data).unwrap();
    customers.more(Orders, 20).await;
    world.node(robbed).restart().unwrap();
    world.wait_healthy();
    // The robbed broker must be able to replace one of those that it copied from.
    let other = (robbed + 1) % 3;
    world.node(other).kill().unwrap();
    events_go_on(&world, &customers).await;
    world.node(other).restart().unwrap();
    world.wait_healthy();
    agrees(world, customers, load).await;
}

/// A server may send events to a killed reader while it cannot see that the reader is gone. The
/// next reader takes over its consumers and misses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_killed_again_and_again_catches_up_each_time() {
    let (world, passwords) = World::clustered_with_accounts();
    passwords.provision(&world.nats_url(), 3).await;
    let (mut world, customers, load) = loaded(world, STEADY).await;
    let nobody = uuid::Uuid::nil().to_string();
    let mut longest = Duration::ZERO;
    for _ in 0..KILLS {
        world.kill(Purchases).await;
        world.run(Purchases).await;
        let heads = world.heads().await.to_string();
        let began = Instant::now();
        eventually_within(CATCHES_UP_WITHIN, "the next reader to catch up", || async {
            let reply = world.purchases(&nobody, &heads).await;
            let is_there = reply.status == 404;
            if is_there { Ok(()) } else { Err(reply.text) }
        })
        .await;
        longest = longest.max(began.elapsed());
    }
    tell(&format!(
        "{KILLS} readers killed: the next one caught up within {longest:.1?}"
    ));
    let fetched = logged(&world, Purchases, "WARN", "fetched from the outbox");
    assert!(
        fetched.len() < KILLS / 5,
        "events went to a killed reader: {fetched:?}"
    );
    load.end().await;
    agrees_at_last(world, customers).await;
}

/// An operator who goes from one broker to three configures the services, never the streams.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_gets_the_copies_that_its_service_is_told_of_and_loses_none() {
    const COPIES: &str = "HEADWATER_NATS_REPLICAS";
    let mut world = World::on_three_brokers().empty();
    for (wanted, copies) in [("1", 1), ("3", 3), ("1", 3), ("5", 3)] {
        world
            .run_with(Orders, |command| {
                command.env(COPIES, wanted);
            })
            .await;
        e2e::faults::says(&world.client(Orders), "relay", "ok", "").await;
        has_copies(&world, Orders, copies).await;
        let log = world.process(Orders).log();
        let warned = lines(&log).any(|line| line["level"] == "WARN" && line["wanted"] == 5);
        assert_eq!(warned, wanted == "5", "{log}");
        world.stop(Orders).await;
    }
    world.abandon();
}
