//! The relay when the broker fails, forgets, or knows more than the database.

use headwater::health::State;
use headwater_testkit::copy_folder;
use tokio::task::JoinSet;

use crate::support::{
    GaugeRead, Tasks, append, backup, broker, bus, eventually, eventually_says, eventually_stored,
    folder, ids, is, jetstream, keep_log, logged, make_soft_stream, metrics, open, publish_again,
    read, reads, relaying, serve_system, stored,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_under_load_holds_each_event_once_and_in_order() {
    let (folder, mut broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    let (writer, mut writing) = (db.clone(), JoinSet::new());
    writing.spawn(async move {
        let mut next = 1;
        for size in (0..400).map(|turn| [1, 2, 40][turn % 3]) {
            append(&writer, reads(next..next + size)).await;
            next += size;
        }
        next
    });
    for _ in 0..3 {
        let before = published(&relay);
        eventually("some events are published", async || {
            let now = published(&relay);
            if now > before { Ok(()) } else { Err(now) }
        })
        .await;
        broker.kill().unwrap();
        broker.restart().unwrap();
    }
    let next = writing.join_next().await.unwrap().unwrap();
    let stored = eventually_stored(&bus, "sensors", &(1..next).collect::<Vec<_>>()).await;
    let found: Vec<_> = stored.iter().map(|event| event.id.clone()).collect();
    assert_eq!(found, ids(&db, u64::try_from(next - 1).unwrap()));
    relay.stop().await;
}

fn published(relay: &Tasks) -> u64 {
    match relay.health.parts().get("relay") {
        Some(State::Ok(text)) => text.rsplit(' ').next().unwrap().parse().unwrap(),
        _ => 0,
    }
}

#[tokio::test]
async fn a_paused_broker_stores_nothing_twice() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=3)).await;
    eventually_stored(&bus, "sensors", &[1, 2, 3]).await;
    broker.pause().unwrap();
    append(&db, reads(4..=6)).await;
    // The messages are in the server's socket; the relay's publish times out.
    eventually_says(&relay.health, "relay", "Degraded").await;
    append(&db, reads(7..=40)).await;
    broker.resume().unwrap();
    eventually_stored(&bus, "sensors", &(1..=40).collect::<Vec<_>>()).await;
    relay.stop().await;
}

/// Nothing is written after the loss: the relay must detect it.
#[tokio::test]
async fn a_deleted_stream_is_made_again_and_filled_from_the_outbox() {
    keep_log();
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "gauges").await;
    let bus = bus(&broker, "gauges").await;
    let mut tasks = relaying(&db, &bus);
    let address = serve_system(&mut tasks).await;
    let gauges = (1..=30).map(|value| GaugeRead {
        gauge: "oil".to_owned(),
        value,
    });
    append(&db, gauges.collect()).await;
    let wanted: Vec<i64> = (1..=30).collect();
    eventually_stored(&bus, "gauges", &wanted).await;
    eventually_says(&tasks.health, "relay", "published up to 30\"").await;
    let republished = "headwater_relay_republished_total{source=\"gauges\"}";
    let before = metrics(&address)
        .await
        .get(republished)
        .copied()
        .unwrap_or(0);

    jetstream(&bus).delete_stream("GAUGES").await.unwrap();
    let stored = eventually_stored(&bus, "gauges", &wanted).await;
    let found: Vec<_> = stored.iter().map(|event| event.id.clone()).collect();
    assert_eq!(found, ids(&db, 30));
    let after = metrics(&address).await[republished];
    assert_eq!(after - before, 30);
    let lines = logged("the stream lost events");
    let line = lines
        .iter()
        .find(|line| line.contains("source=\"gauges\""))
        .expect("a log line");
    assert!(line.starts_with("WARN") && line.contains("30"), "{line}");
    tasks.stop().await;
}

#[tokio::test]
async fn a_purged_stream_is_filled_from_the_outbox() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    make_soft_stream(&bus, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=30)).await;
    eventually_stored(&bus, "sensors", &(1..=30).collect::<Vec<_>>()).await;
    jetstream(&bus)
        .get_stream("SENSORS")
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
    let stored = eventually_stored(&bus, "sensors", &(1..=30).collect::<Vec<_>>()).await;
    assert_eq!(stored[0].sequence, 31);
    append(&db, reads(31..=31)).await;
    eventually_stored(&bus, "sensors", &(1..=31).collect::<Vec<_>>()).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_broker_that_was_put_back_from_an_old_copy_is_filled_from_the_outbox() {
    let (folder, mut broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=10)).await;
    eventually_stored(&bus, "sensors", &(1..=10).collect::<Vec<_>>()).await;
    broker.stop().unwrap();
    let (data, copy) = (broker.store().join("jetstream"), folder.path().join("copy"));
    copy_folder(&data, &copy).unwrap();
    broker.restart().unwrap();
    append(&db, reads(11..=50)).await;
    eventually_stored(&bus, "sensors", &(1..=50).collect::<Vec<_>>()).await;

    broker.kill().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy_folder(&copy, &data).unwrap();
    broker.restart().unwrap();
    let observer = crate::support::bus(&broker, "observer").await;
    eventually_stored(&observer, "sensors", &(1..=50).collect::<Vec<_>>()).await;
    relay.stop().await;
}

/// Publishes 5 events of a database, restores its copy from after `kept` events, and writes `since`
/// to it. Returns the state of the relay and the events in the stream.
async fn put_back(kept: i64, since: impl IntoIterator<Item = i64>) -> (State, Vec<i64>) {
    let (folder, broker) = (folder(), broker());
    let bus = bus(&broker, "sensors").await;
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=kept)).await;
    let copy = crate::support::folder();
    let file = copy.path().join("sensors.db");
    backup(&folder.path().join("sensors.db"), &file);
    let relay = relaying(&db, &bus);
    append(&db, reads(kept + 1..=5)).await;
    eventually_stored(&bus, "sensors", &[1, 2, 3, 4, 5]).await;
    relay.stop().await;

    let old = open(&copy, "sensors").await;
    assert_eq!(old.epoch(), db.epoch(), "the epoch is the same");
    append(&old, reads(since)).await;
    let relay = relaying(&old, &bus);
    let state = eventually_says(&relay.health, "relay", "Failed").await;
    append(&old, reads([900])).await;
    assert!(!relay.health.is_ready());
    let values = stored(&bus, "sensors")
        .await
        .iter()
        .map(|event| event.value)
        .collect();
    relay.stop().await;
    (state, values)
}

#[tokio::test]
async fn a_database_from_an_old_copy_stops_the_relay_and_overwrites_nothing() {
    let (state, values) = put_back(3, []).await;
    let State::Failed(why) = state else {
        unreachable!()
    };
    assert!(
        why.contains("the stream is ahead") && why.contains('5') && why.contains('3'),
        "{why}"
    );
    assert_eq!(values, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_database_from_a_copy_without_any_event_stops_the_relay_too() {
    let (state, values) = put_back(0, []).await;
    let State::Failed(why) = state else {
        unreachable!()
    };
    assert!(why.contains("the stream is ahead"), "{why}");
    assert_eq!(values, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_database_from_an_old_copy_that_was_written_to_since_stops_the_relay() {
    for since in [104..=105, 104..=110] {
        let (state, values) = put_back(3, since).await;
        let State::Failed(why) = state else {
            unreachable!()
        };
        assert!(
            why.contains("one event in the stream and another in the database"),
            "{why}"
        );
        assert_eq!(values, [1, 2, 3, 4, 5]);
    }
}

#[tokio::test]
async fn the_relay_goes_on_when_a_person_has_deleted_the_wrong_stream() {
    let (folder, broker) = (folder(), broker());
    let bus = bus(&broker, "sensors").await;
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=3)).await;
    let copy = crate::support::folder();
    backup(
        &folder.path().join("sensors.db"),
        &copy.path().join("sensors.db"),
    );
    let relay = relaying(&db, &bus);
    append(&db, reads(4..=5)).await;
    eventually_stored(&bus, "sensors", &[1, 2, 3, 4, 5]).await;
    relay.stop().await;
    let old = open(&copy, "sensors").await;
    let relay = relaying(&old, &bus);
    eventually_says(&relay.health, "relay", "Failed").await;
    jetstream(&bus).delete_stream("SENSORS").await.unwrap();
    eventually_stored(&bus, "sensors", &[1, 2, 3]).await;
    eventually_says(&relay.health, "relay", "Ok").await;
    relay.stop().await;
}

/// The server's dedupe window is 100 ms. After it, the server accepts a copy of an event from any
/// client.
#[tokio::test]
async fn events_that_somebody_published_again_break_nothing() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=5)).await;
    let events = eventually_stored(&bus, "sensors", &[1, 2, 3, 4, 5]).await;

    publish_again(&bus, &events[1..3]).await;
    append(&db, reads(6..=6)).await;
    let wanted = [1, 2, 3, 4, 5, 2, 3, 6];
    eventually_stored(&bus, "sensors", &wanted).await;
    relay.stop().await;

    publish_again(&bus, &events[0..2]).await;
    append(&db, reads(7..=50)).await;
    let relay = relaying(&db, &bus);
    let wanted: Vec<i64> = wanted.into_iter().chain([1, 2]).chain(7..=50).collect();
    eventually_stored(&bus, "sensors", &wanted).await;
    relay.stop().await;
}

/// More events than the relay reads backwards.
#[tokio::test]
async fn many_events_that_somebody_published_again_are_no_loss() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=80)).await;
    let mut wanted: Vec<i64> = (1..=80).collect();
    let events = eventually_stored(&bus, "sensors", &wanted).await;
    eventually_says(&relay.health, "relay", "published up to 80\"").await;
    publish_again(&bus, &events[..70]).await;
    append(&db, reads(81..=82)).await;
    wanted.extend((1..=70).chain(81..=82));
    eventually_stored(&bus, "sensors", &wanted).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_full_stream_makes_the_relay_wait_and_drops_nothing() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut settings = headwater::stream::settings("sensors", 1);
    settings.max_messages = 3;
    jetstream(&bus)
        .create_stream(settings.clone())
        .await
        .unwrap();
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=5)).await;
    let why = "position 4 is refused by max_msgs of the stream SENSORS (3)";
    eventually_says(&relay.health, "relay", why).await;
    let values = async || {
        let stored = stored(&bus, "sensors").await;
        stored.iter().map(|event| event.value).collect::<Vec<_>>()
    };
    eventually("the stream is full", async || {
        is(values().await, &vec![1, 2, 3])
    })
    .await;
    settings.max_messages = -1;
    jetstream(&bus).update_stream(settings).await.unwrap();
    eventually_stored(&bus, "sensors", &[1, 2, 3, 4, 5]).await;
    relay.stop().await;
}

#[tokio::test]
async fn the_relay_stops_when_it_is_told_to_whatever_the_broker_does() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, vec![read("attic", 1)]).await;
    eventually_stored(&bus, "sensors", &[1]).await;
    broker.pause().unwrap();
    append(&db, vec![read("attic", 2)]).await;
    let started = std::time::Instant::now();
    relay.stop().await;
    assert!(started.elapsed().as_secs() < 2);
    broker.resume().unwrap();
}
