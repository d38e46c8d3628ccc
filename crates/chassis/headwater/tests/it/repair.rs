//! Projections of a stream that has lost events: positions decide, gaps are fetched.

use futures_util::StreamExt as _;
use headwater_testkit::copy_folder;

use crate::support::{
    World, bus, eventually_readings, eventually_says, eventually_stored, jetstream, projecting,
    publish_by_hand, read, readings, relaying, stored,
};

const PART: &str = "readings from sensors";

#[tokio::test]
async fn a_stream_that_was_made_anew_is_read_again_and_nothing_is_applied_twice() {
    let world = World::start().await;
    world.append(1..=30).await;
    eventually_readings(&world.copy, &(1..=30).collect::<Vec<_>>()).await;
    jetstream(&world.bus)
        .delete_stream("SENSORS")
        .await
        .unwrap();
    world.append(31..=32).await;
    eventually_stored(&world.bus, "sensors", &(1..=32).collect::<Vec<_>>()).await;
    eventually_readings(&world.copy, &(1..=32).collect::<Vec<_>>()).await;
    world.stop().await;
}

/// Events by hand were lost with the old stream, so relayed events have other sequences now.
#[tokio::test]
async fn a_sequence_of_another_stream_says_nothing_of_this_one() {
    let mut world = World::start().await;
    world.append(1..=5).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5]).await;
    for value in 100..103 {
        publish_by_hand(&world.bus, None, &read("attic", value)).await;
    }
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5, 100, 101, 102]).await;
    world.stop_reader().await;
    jetstream(&world.bus)
        .delete_stream("SENSORS")
        .await
        .unwrap();
    world.append(6..=7).await;
    eventually_stored(&world.bus, "sensors", &(1..=7).collect::<Vec<_>>()).await;
    // At a sequence that the old stream also had.
    publish_by_hand(&world.bus, None, &read("attic", 103)).await;
    world.start_reader().await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5, 100, 101, 102, 6, 7, 103]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_purged_stream_that_is_filled_again_is_applied_once() {
    let world = World::with_soft_stream().await;
    world.append(1..=30).await;
    eventually_readings(&world.copy, &(1..=30).collect::<Vec<_>>()).await;
    jetstream(&world.bus)
        .get_stream("SENSORS")
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
    world.append(31..=31).await;
    eventually_readings(&world.copy, &(1..=31).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn events_that_the_stream_misses_are_fetched_from_the_outbox() {
    let mut world = World::with_soft_stream().await;
    world.relay.operator(&world.source, &world.bus);
    world.append(1..=5).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5]).await;
    world.stop_reader().await;
    world.append(6..=20).await;
    eventually_stored(&world.bus, "sensors", &(1..=20).collect::<Vec<_>>()).await;
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    for sequence in [6, 7, 12] {
        stream.delete_message(sequence).await.unwrap();
    }
    world.start_reader().await;
    eventually_readings(&world.copy, &(1..=20).collect::<Vec<_>>()).await;
    eventually_says(&world.reader.health, PART, "Ok(\"applied up to 20\")").await;
    world.stop().await;
}

/// No later event shows the gap.
#[tokio::test]
async fn the_last_event_of_a_stream_comes_back_when_it_was_deleted() {
    let mut world = World::with_soft_stream().await;
    world.append(1..=5).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5]).await;
    world.stop_reader().await;
    world.append(6..=7).await;
    eventually_stored(&world.bus, "sensors", &(1..=7).collect::<Vec<_>>()).await;
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    stream.delete_message(7).await.unwrap();
    world.start_reader().await;
    eventually_readings(&world.copy, &(1..=7).collect::<Vec<_>>()).await;
    world.stop().await;
}

/// More events than fit into one answer of the admin endpoint.
#[tokio::test]
async fn a_large_gap_is_fetched_in_parts() {
    let mut world = World::with_soft_stream().await;
    world.relay.operator(&world.source, &world.bus);
    world.stop_reader().await;
    world.append(1..=2500).await;
    eventually_says(&world.relay.health, "relay", "published up to 2500\"").await;
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    stream.purge().sequence(2450).await.unwrap();
    world.start_reader().await;
    eventually_readings(&world.copy, &(1..=2500).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_gap_whose_source_is_away_is_held_and_said_and_never_skipped() {
    let mut world = World::with_soft_stream().await;
    world.append(1..=2).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    world.stop_reader().await;
    world.append(3..=9).await;
    eventually_stored(&world.bus, "sensors", &(1..=9).collect::<Vec<_>>()).await;
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    stream.delete_message(5).await.unwrap();

    world.start_reader().await;
    let missing = "the stream misses the events 5 to 5 of sensors";
    eventually_says(&world.reader.health, PART, missing).await;
    world.append(10..=12).await;
    eventually_stored(&world.bus, "sensors", &[1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]).await;
    eventually_says(&world.reader.health, PART, missing).await;
    assert_eq!(readings(&world.copy).await, [1, 2, 3, 4]);

    world.relay.operator(&world.source, &world.bus);
    eventually_readings(&world.copy, &(1..=12).collect::<Vec<_>>()).await;
    eventually_says(&world.reader.health, PART, "Ok").await;
    world.stop().await;
}

/// A pull of a dead connection that a hanging broker keeps takes events, and so does a pull by
/// hand. The source does not answer here, so the events must be read from the stream again.
#[tokio::test]
async fn events_that_somebody_else_was_handed_are_read_again() {
    let world = World::with_soft_stream().await;
    world.append(1..=5).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5]).await;
    let client = world.bus.client();
    let inbox = client.new_inbox();
    let mut stranger = client.subscribe(inbox.clone()).await.unwrap();
    let next = "$JS.API.CONSUMER.MSG.NEXT.SENSORS.readings";
    let many = r#"{"batch":1000,"expires":60000000000}"#;
    client
        .publish_with_reply(next, inbox, many.into())
        .await
        .unwrap();
    client.flush().await.unwrap();
    for value in 6..=40 {
        world.append(value..=value).await;
    }
    assert!(stranger.next().await.is_some(), "it got some events");
    eventually_readings(&world.copy, &(1..=40).collect::<Vec<_>>()).await;
    world.stop().await;
}

/// A broker that was restored from an old copy may have lost events and be refilled differently:
/// events by hand are gone, so relayed events have other sequences than before.
#[tokio::test]
async fn a_broker_from_an_old_copy_hides_nothing_from_a_projection() {
    let mut world = World::start().await;
    world.append(1..=5).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5]).await;
    world.broker.stop().unwrap();
    let data = world.broker.store().join("jetstream");
    let copy = world.folder.path().join("copy");
    copy_folder(&data, &copy).unwrap();
    world.broker.restart().unwrap();
    let person = bus(&world.broker, "person").await;
    publish_by_hand(&person, None, &read("attic", 100)).await;
    publish_by_hand(&person, None, &read("attic", 101)).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5, 100, 101]).await;
    world.append(6..=9).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5, 100, 101, 6, 7, 8, 9]).await;
    world.stop_reader().await;

    world.broker.kill().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy_folder(&copy, &data).unwrap();
    world.broker.restart().unwrap();
    // Nine relayed events, and two new ones at sequences that existed before.
    world.relay.operator(&world.source, &world.bus);
    world.append(10..=11).await;
    eventually_stored(&world.bus, "sensors", &(1..=11).collect::<Vec<_>>()).await;
    world.start_reader().await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5, 100, 101, 6, 7, 8, 9, 10, 11]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_projection_that_is_ahead_of_a_rolled_back_broker_goes_on_with_what_is_new() {
    let mut world = World::start().await;
    world.append(1..=5).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5]).await;
    world.broker.stop().unwrap();
    let data = world.broker.store().join("jetstream");
    let copy = world.folder.path().join("copy");
    copy_folder(&data, &copy).unwrap();
    world.broker.restart().unwrap();
    world.append(6..=20).await;
    eventually_readings(&world.copy, &(1..=20).collect::<Vec<_>>()).await;

    world.broker.kill().unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy_folder(&copy, &data).unwrap();
    world.broker.restart().unwrap();
    world.append(21..=22).await;
    eventually_readings(&world.copy, &(1..=22).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_copy_that_was_put_back_catches_up() {
    let mut world = World::start().await;
    world.append(1..=3).await;
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    let backup = crate::support::folder();
    let file = backup.path().join("house.db");
    crate::support::backup(&world.folder.path().join("house.db"), &file);
    world.append(4..=9).await;
    eventually_readings(&world.copy, &(1..=9).collect::<Vec<_>>()).await;
    world.stop_reader().await;
    let restored = crate::support::open(&backup, "house").await;
    assert_eq!(readings(&restored).await, [1, 2, 3]);
    world.reader = projecting(&restored, &world.bus).await;
    eventually_readings(&restored, &(1..=9).collect::<Vec<_>>()).await;
    world.stop().await;
}

/// At the end of an empty stream, a consumer starts beyond the end.
#[tokio::test]
async fn a_projection_at_the_end_of_the_stream_gets_the_next_event() {
    let mut world = World::start().await;
    eventually_says(&world.relay.health, "relay", "published up to 0").await;
    eventually_says(&world.reader.health, PART, "Ok").await;
    world.append(1..=1).await;
    eventually_readings(&world.copy, &[1]).await;
    for value in 2..=4 {
        world.stop_reader().await;
        world.start_reader().await;
        eventually_says(&world.reader.health, PART, "Ok").await;
        world.append(value..=value).await;
        eventually_readings(&world.copy, &(1..=value).collect::<Vec<_>>()).await;
    }
    assert_eq!(stored(&world.bus, "sensors").await.len(), 4);
    world.stop().await;
}

#[tokio::test]
async fn all_copies_lost_but_the_outbox_and_everything_comes_back() {
    let mut world = World::start().await;
    world.append(1..=60).await;
    eventually_readings(&world.copy, &(1..=60).collect::<Vec<_>>()).await;
    world.stop_reader().await;
    world.stop_relay().await;
    world.broker.kill().unwrap();
    std::fs::remove_dir_all(world.broker.store().join("jetstream")).unwrap();
    world.broker.restart().unwrap();
    let other_folder = crate::support::folder();
    world.copy = crate::support::open(&other_folder, "house").await;
    world.relay = relaying(&world.source, &world.bus);
    world.start_reader().await;
    eventually_readings(&world.copy, &(1..=60).collect::<Vec<_>>()).await;
    world.stop().await;
}
