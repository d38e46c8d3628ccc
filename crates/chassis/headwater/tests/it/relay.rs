//! The relay: outbox to stream, in order, each event once.

use headwater::outbox;
use headwater::{MAX_PAYLOAD, subject_of};

use crate::support::{
    append, broker, bus, eventually, eventually_says, eventually_stored, folder, ids, jetstream,
    large, open, publish_by_hand, read, reads, relaying,
};

#[tokio::test]
async fn events_are_published_in_order_with_their_ids_and_subjects() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    let sensors: Vec<_> = (1..=20).map(|n| read(&format!("sensor {n}"), n)).collect();
    append(&db, sensors.clone()).await;
    let stored = eventually_stored(&bus, "sensors", &(1..=20).collect::<Vec<_>>()).await;
    let found: Vec<_> = stored.iter().map(|event| event.id.clone()).collect();
    assert_eq!(found, ids(&db, 20));
    for (event, sensor) in stored.iter().zip(&sensors) {
        assert_eq!(event.subject, subject_of(sensor));
        assert_eq!(event.payload, prost::Message::encode_to_vec(sensor));
    }
    eventually_says(&relay.health, "relay", "Ok(\"published up to 20\")").await;
    relay.stop().await;
}

#[tokio::test]
async fn a_commit_wakes_the_relay() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    eventually_says(&relay.health, "relay", "published up to 0").await;
    let started = std::time::Instant::now();
    for value in 1..=20 {
        append(&db, vec![read("attic", value)]).await;
        eventually_says(
            &relay.health,
            "relay",
            &format!("published up to {value}\""),
        )
        .await;
    }
    let took = started.elapsed();
    assert!(
        took.as_secs() < 5,
        "{took:?} for 20 events: only the poll found them"
    );
    relay.stop().await;
}

#[tokio::test]
async fn the_stream_is_made_as_the_design_says() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    eventually_says(&relay.health, "relay", "published up to 0").await;
    let stream = jetstream(&bus).get_stream("SENSORS").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.subjects, ["sensors.>"]);
    assert!(config.deny_delete && config.deny_purge);
    assert!(config.allow_direct && config.allow_atomic_publish);
    assert!(config.max_age.is_zero());
    assert_eq!(
        config.discard,
        async_nats::jetstream::stream::DiscardPolicy::New
    );
    assert_eq!(config.metadata["headwater.source"], "sensors");
    assert!(config.description.is_some());
    relay.stop().await;
}

#[tokio::test]
async fn an_older_stream_is_brought_to_its_settings_and_keeps_an_operators_limits() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut older = headwater::stream::settings("sensors", 1);
    older.allow_atomic_publish = false;
    older.metadata.clear();
    older.max_bytes = 1_000_000_000;
    jetstream(&bus).create_stream(older).await.unwrap();
    let relay = relaying(&db, &bus);
    eventually_says(&relay.health, "relay", "published up to 0").await;
    append(&db, reads(1..=100)).await;
    eventually_stored(&bus, "sensors", &(1..=100).collect::<Vec<_>>()).await;
    let stream = jetstream(&bus).get_stream("SENSORS").await.unwrap();
    assert_eq!(stream.cached_info().config.max_bytes, 1_000_000_000);
    assert!(stream.cached_info().config.allow_atomic_publish);
    relay.stop().await;
}

#[tokio::test]
async fn a_relay_that_starts_before_the_broker_drains_later() {
    let (folder, mut broker) = (folder(), broker());
    broker.kill().unwrap();
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=30)).await;
    eventually_says(&relay.health, "relay", "Degraded").await;
    broker.restart().unwrap();
    eventually_stored(&bus, "sensors", &(1..=30).collect::<Vec<_>>()).await;
    relay.stop().await;
}

/// Few rows are published as pipelined messages, 14 or more as one atomic batch of at most 1000.
#[tokio::test]
async fn any_number_of_waiting_events_is_published_once_and_in_order() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut next = 1;
    for waiting in [1, 2, 13, 14, 15, 999, 1000, 1001, 2030] {
        append(&db, reads(next..next + waiting)).await;
        next += waiting;
        let relay = relaying(&db, &bus);
        let stored = eventually_stored(&bus, "sensors", &(1..next).collect::<Vec<_>>()).await;
        let found: Vec<_> = stored.iter().map(|event| event.id.clone()).collect();
        assert_eq!(found, ids(&db, u64::try_from(next - 1).unwrap()));
        relay.stop().await;
    }
}

#[tokio::test]
async fn large_events_are_published_a_few_at_a_time() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    for value in 1..=100 {
        append(&db, vec![large(value, MAX_PAYLOAD - 20)]).await;
    }
    let relay = relaying(&db, &bus);
    eventually_says(&relay.health, "relay", "published up to 100\"").await;
    eventually_stored(&bus, "sensors", &(1..=100).collect::<Vec<_>>()).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_restarted_relay_continues_after_the_tail() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    for round in 0..5 {
        let relay = relaying(&db, &bus);
        append(&db, reads(round * 3 + 1..=round * 3 + 3)).await;
        let wanted: Vec<_> = (1..=round * 3 + 3).collect();
        eventually_stored(&bus, "sensors", &wanted).await;
        relay.stop().await;
    }
}

#[tokio::test]
async fn events_that_somebody_published_by_hand_are_stepped_over() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=2)).await;
    eventually_stored(&bus, "sensors", &[1, 2]).await;
    publish_by_hand(&bus, None, &read("attic", 100)).await;
    append(&db, reads(3..=3)).await;
    eventually_stored(&bus, "sensors", &[1, 2, 100, 3]).await;
    publish_by_hand(&bus, Some("an id by hand"), &read("attic", 101)).await;
    publish_by_hand(&bus, Some("sensors.another-epoch.7"), &read("attic", 102)).await;
    publish_by_hand(&bus, Some("gauges.x.9"), &read("attic", 103)).await;
    append(&db, reads(4..=40)).await;
    let mut wanted = vec![1, 2, 100, 3, 101, 102, 103];
    wanted.extend(4..=40);
    eventually_stored(&bus, "sensors", &wanted).await;
    relay.stop().await;

    // Also by a later relay that finds only such events at the end of the stream.
    for value in 200..300 {
        publish_by_hand(&bus, None, &read("attic", value)).await;
    }
    append(&db, reads(41..=41)).await;
    let relay = relaying(&db, &bus);
    wanted.extend((200..300).chain([41]));
    eventually_stored(&bus, "sensors", &wanted).await;
    relay.stop().await;
}

/// The first event is refused. If the second event's check counted only sequences, it would be
/// stored now, and the first event would be missing for ever.
#[tokio::test]
async fn an_event_by_hand_does_not_take_the_place_of_the_first_of_a_few() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=1)).await;
    eventually_stored(&bus, "sensors", &[1]).await;
    let (mut wanted, mut all) = (1, vec![1]);
    for by_hand in [1, 2, 3] {
        for value in 0..by_hand {
            publish_by_hand(&bus, None, &read("attic", 100 + value)).await;
        }
        append(&db, reads(wanted + 1..=wanted + 5)).await;
        all.extend((0..by_hand).map(|value| 100 + value));
        all.extend(wanted + 1..=wanted + 5);
        wanted += 5;
        eventually_stored(&bus, "sensors", &all).await;
    }
    relay.stop().await;
}

#[tokio::test]
async fn an_event_by_hand_before_the_first_one_is_stepped_over() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    eventually_says(&relay.health, "relay", "published up to 0").await;
    publish_by_hand(&bus, None, &read("attic", 100)).await;
    append(&db, reads(1..=1)).await;
    eventually_stored(&bus, "sensors", &[100, 1]).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_at_once_publish_each_event_once_and_in_order() {
    let (folder, broker) = (folder(), broker());
    // Like two processes: each has its own handle on the file and its own connection.
    let (db, other) = (
        open(&folder, "sensors").await,
        open(&folder, "sensors").await,
    );
    let bus_of_other = bus(&broker, "other").await;
    let bus = bus(&broker, "sensors").await;
    let relays = [
        relaying(&db, &bus),
        relaying(&other, &bus_of_other),
        relaying(&db, &bus_of_other),
    ];
    let mut next = 1;
    for size in (0..150).map(|turn| [1, 3, 30][turn % 3]) {
        append(&db, reads(next..next + size)).await;
        next += size;
    }
    let stored = eventually_stored(&bus, "sensors", &(1..next).collect::<Vec<_>>()).await;
    let found: Vec<_> = stored.iter().map(|event| event.id.clone()).collect();
    assert_eq!(found, ids(&db, u64::try_from(next - 1).unwrap()));
    for relay in relays {
        relay.stop().await;
    }
}

/// After the server's dedupe window, only the expected-last-sequence check keeps a relay from
/// publishing again what its rival has published meanwhile.
#[tokio::test]
async fn a_relay_that_is_behind_its_rival_is_refused() {
    for waiting in [1, 30] {
        let (folder, broker) = (folder(), broker());
        let (db, rivals) = (
            open(&folder, "sensors").await,
            open(&folder, "sensors").await,
        );
        let bus = bus(&broker, "sensors").await;
        let relay = relaying(&db, &bus);
        eventually_says(&relay.health, "relay", "published up to 0").await;
        let rival = relaying(&rivals, &bus);
        append(&rivals, reads(1..=waiting)).await;
        let stored = eventually_stored(&bus, "sensors", &(1..=waiting).collect::<Vec<_>>()).await;
        let window = headwater::stream::settings("sensors", 1).duplicate_window;
        let published = std::time::Instant::now();
        eventually("the dedupe window has passed", async || {
            let passed = published.elapsed();
            if passed > window * 2 {
                Ok(())
            } else {
                Err(passed)
            }
        })
        .await;
        // Wakes only the relay that is behind.
        append(&db, reads(waiting + 1..=waiting + 1)).await;
        let wanted: Vec<_> = (1..=waiting + 1).collect();
        eventually_says(&relay.health, "relay", &format!("up to {}\"", waiting + 1)).await;
        let after = eventually_stored(&bus, "sensors", &wanted).await;
        assert_eq!(after.len(), stored.len() + 1);
        relay.stop().await;
        rival.stop().await;
    }
}

/// The other process does not advance this handle's `head`: only the file has the events.
#[tokio::test]
async fn what_another_process_appended_is_published_too() {
    let (folder, broker) = (folder(), broker());
    let (db, other) = (
        open(&folder, "sensors").await,
        open(&folder, "sensors").await,
    );
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    eventually_says(&relay.health, "relay", "published up to 0").await;
    append(&other, reads(1..=2)).await;
    eventually_stored(&bus, "sensors", &[1, 2]).await;
    relay.stop().await;

    let relay = relaying(&db, &bus);
    append(&other, reads(3..=3)).await;
    eventually_stored(&bus, "sensors", &[1, 2, 3]).await;
    let rows = db
        .read(|snapshot| outbox::page(snapshot, 1, 10))
        .await
        .unwrap();
    assert_eq!(rows.len(), 3);
    relay.stop().await;
}

/// The database was lost, or emptied by mistake. Publishing would hide the loss.
#[tokio::test]
async fn a_database_that_knows_nothing_of_the_stream_stops_the_relay() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=3)).await;
    eventually_stored(&bus, "sensors", &[1, 2, 3]).await;
    relay.stop().await;

    let other_folder = crate::support::folder();
    let empty = open(&other_folder, "sensors").await;
    let relay = relaying(&empty, &bus);
    let why = format!("events of the epoch {} up to position 3", db.epoch());
    let state = eventually_says(&relay.health, "relay", &why).await;
    let advice = format!("{state:?}");
    assert!(advice.contains("put back the newest copy"), "{advice}");
    assert!(
        advice.contains("headwater stream restore sensors"),
        "{advice}"
    );
    append(&empty, reads(11..=12)).await;
    assert!(!relay.health.is_ready());
    eventually_stored(&bus, "sensors", &[1, 2, 3]).await;

    // The operator decides for the new epoch.
    jetstream(&bus).delete_stream("SENSORS").await.unwrap();
    let stored = eventually_stored(&bus, "sensors", &[11, 12]).await;
    assert_eq!(stored[0].id, ids(&empty, 1)[0]);
    eventually_says(&relay.health, "relay", "published up to 2").await;
    relay.stop().await;
}

/// The relay has read the stream before, so a later event by hand is not evidence of another epoch.
#[tokio::test]
async fn an_event_of_another_epoch_does_not_stop_a_source_that_has_no_event_yet() {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    eventually_says(&relay.health, "relay", "published up to 0").await;
    relay.stop().await;
    publish_by_hand(&bus, Some("sensors.another-epoch.7"), &read("attic", 100)).await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=1)).await;
    eventually_stored(&bus, "sensors", &[100, 1]).await;
    relay.stop().await;
}
