//! Events that no relay published: of a foreign epoch, altered, by hand, or beyond the outbox.

use headwater::health::State;
use headwater::projection::as_of;
use prost::Message as _;
use serde_json::json;

use crate::rebuild::Place;
use crate::support::{
    Readings, Stored, Tasks, World, append, begin_epoch, eventually, eventually_readings,
    eventually_says, eventually_stored, folder, is, jetstream, keep_log, logged, open,
    publish_again, publish_by_hand, read, readings, reads, relaying, texts,
};

const PART: &str = "readings from sensors";

/// The anomalies of the stream that the store has recorded, as `kind: events`.
async fn anomalies(world: &World) -> Vec<String> {
    let sql = "SELECT kind || ': ' || events AS t FROM headwater_anomaly
               JOIN headwater_checkpoint USING (projection, source, stream_created) ORDER BY kind";
    let read = |snapshot: &_| texts(snapshot, sql);
    world.copy.read(read).await.unwrap()
}

async fn eventually_noted(world: &World, wanted: &[&str]) {
    let wanted: Vec<String> = wanted.iter().map(|&text| text.to_owned()).collect();
    eventually("the anomaly is recorded", async || {
        is(anomalies(world).await, &wanted)
    })
    .await;
}

/// A source that answers, and two applied events.
async fn started() -> World {
    let mut world = World::start().await;
    world.relay.operator(&world.source, &world.bus);
    eventually("the source answers", async || {
        let asked = world
            .bus
            .client()
            .request("headwater.sensors.status", "".into());
        asked.await.map_err(|error| error.to_string())
    })
    .await;
    world.append(1..=2).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    world
}

#[tokio::test]
async fn an_event_of_an_epoch_that_the_source_does_not_have_is_refused_until_the_stream_is_made_again()
 {
    keep_log();
    let mut world = started().await;
    for id in ["sensors.forged.1", "sensors.forged.2", "sensors.other.7"] {
        publish_by_hand(&world.bus, Some(id), &read("forger", 666)).await;
    }
    world.append(3..=4).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4]).await;
    let refused = "3 events of an epoch that sensors does not have were refused";
    let state = eventually_says(&world.reader.health, PART, "applied up to 4").await;
    assert!(matches!(state, State::Degraded(_)), "{state:?}");
    assert!(format!("{state:?}").contains(refused), "{state:?}");
    let at = world.copy.read(as_of::<Readings>).await.unwrap();
    assert_eq!(at.applied.get("sensors"), 4);
    let lines = logged("event.id=sensors.forged.1");
    assert!(
        lines.iter().any(|line| line.starts_with("WARN")
            && line.contains("event.sequence=3")
            && line.contains("event.subject=\"sensors.v1.read.")),
        "{lines:?}"
    );

    world.stop_reader().await;
    world.start_reader().await;
    eventually_says(&world.reader.health, PART, refused).await;
    jetstream(&world.bus)
        .delete_stream("SENSORS")
        .await
        .unwrap();
    world.append(5..=5).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5]).await;
    eventually_says(&world.reader.health, PART, "Ok(\"applied up to 5\")").await;
    world.stop().await;
}

#[tokio::test]
async fn an_unknown_epoch_waits_until_the_source_has_said_whether_it_is_its_own() {
    let mut world = started().await;
    eventually("the epoch is confirmed", async || {
        let sql = "SELECT epoch AS t FROM headwater_epoch WHERE last IS NULL";
        let confirmed = world
            .copy
            .read(move |snapshot: &_| texts(snapshot, sql))
            .await;
        is(confirmed.unwrap(), &vec![world.source.epoch().to_string()])
    })
    .await;
    world.stop_relay().await;
    let other_folder = folder();
    let new_source = open(&other_folder, "sensors").await;
    begin_epoch(&world.bus, &new_source, [11, 12]).await;
    world.relay = relaying(&new_source, &world.bus);
    eventually_stored(&world.bus, "sensors", &[1, 2, 11, 12]).await;
    let waits = "sensors does not say whether that is its own";
    eventually_says(&world.reader.health, PART, waits).await;
    assert_eq!(readings(&world.copy).await, [1, 2]);

    world.relay.operator(&new_source, &world.bus);
    eventually_readings(&world.copy, &[1, 2, 11, 12]).await;
    eventually_says(&world.reader.health, PART, "Ok(\"applied up to 2\")").await;
    // The former epoch has ended: a later event of it is refused.
    let former = format!("sensors.{}.3", world.source.epoch());
    publish_by_hand(&world.bus, Some(&former), &read("forger", 666)).await;
    eventually_noted(&world, &["foreign-epoch: 1"]).await;
    assert_eq!(readings(&world.copy).await, [1, 2, 11, 12]);
    world.stop().await;
}

/// While the source does not answer, a new store accepts the first epoch it sees. The source
/// corrects it later.
#[tokio::test]
async fn an_epoch_that_was_taken_while_the_source_was_away_is_checked_once_it_is_back() {
    let mut world = World::start().await;
    eventually_says(&world.relay.health, "relay", "published up to 0").await;
    publish_by_hand(&world.bus, Some("sensors.forged.1"), &read("forger", 666)).await;
    eventually_readings(&world.copy, &[666]).await;
    world.append(1..=2).await;
    eventually_says(&world.reader.health, PART, "does not say whether").await;
    world.relay.operator(&world.source, &world.bus);
    eventually_readings(&world.copy, &[666, 1, 2]).await;
    let wrong = "1 events were applied of the epoch forged, which sensors does not have";
    let state = eventually_says(&world.reader.health, PART, wrong).await;
    assert!(matches!(state, State::Failed(_)), "{state:?}");
    assert!(
        format!("{state:?}").contains("rebuild readings"),
        "{state:?}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_projection_that_is_ahead_of_its_source_is_a_fault() {
    let world = started().await;
    let next = format!("sensors.{}.3", world.source.epoch());
    publish_by_hand(&world.bus, Some(&next), &read("forger", 666)).await;
    eventually_readings(&world.copy, &[1, 2, 666]).await;
    let ahead = "applied up to 3 of 2: ahead of sensors";
    let state = eventually_says(&world.reader.health, PART, ahead).await;
    assert!(matches!(state, State::Failed(_)), "{state:?}");
    assert!(!world.reader.health.is_ready());
    world.stop().await;
}

/// The source's file was lost, and the service has created another one.
#[tokio::test]
async fn a_source_that_lost_its_database_is_a_fault_of_who_knows_more() {
    let mut world = started().await;
    world.stop_relay().await;
    let other_folder = folder();
    let new_source = open(&other_folder, "sensors").await;
    world.relay.operator(&new_source, &world.bus);
    let lost = "applied up to 2 of the epoch";
    let state = eventually_says(&world.reader.health, PART, lost).await;
    assert!(matches!(state, State::Failed(_)), "{state:?}");
    assert!(
        format!("{state:?}").contains("sensors is at 0"),
        "{state:?}"
    );
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_takes_the_confirmed_epochs_along_and_needs_no_source() {
    let mut place = Place::start().await;
    place.relay.operator(&place.source, &place.bus);
    append(&place.source, reads(1..=3)).await;
    let house = place.service(Readings).await;
    house.eventually(&[1, 2, 3]).await;
    std::mem::replace(&mut place.relay, Tasks::none())
        .stop()
        .await;
    let other_folder = folder();
    let new_source = open(&other_folder, "sensors").await;
    begin_epoch(&place.bus, &new_source, [11, 12]).await;
    let mut relay = relaying(&new_source, &place.bus);
    relay.operator(&new_source, &place.bus);
    house.eventually(&[1, 2, 3, 11, 12]).await;
    let forged = Some("sensors.forged.1");
    publish_by_hand(&place.bus, forged, &read("forger", 666)).await;
    append(&new_source, reads(13..=13)).await;
    house.eventually(&[1, 2, 3, 11, 12, 13]).await;
    relay.stop().await;

    place.ask("rebuild", json!({})).await.unwrap();
    let status = place.eventually_rebuilt("done").await;
    assert_eq!(status["differences"]["count"], 0, "{status}");
    assert_eq!(readings(&house.db).await, [1, 2, 3, 11, 12, 13]);
    house.stop().await;
}

#[tokio::test]
async fn a_known_position_with_another_content_is_found_and_a_copy_is_not() {
    keep_log();
    let mut world = started().await;
    world.append(3..=3).await;
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    let stored = eventually_stored(&world.bus, "sensors", &[1, 2, 3]).await;
    publish_again(&world.bus, &stored[1..2]).await;
    let forged = Stored {
        payload: read("forger", 666).encode_to_vec().into(),
        ..stored[1].clone()
    };
    let second = forged.id.clone().unwrap();
    publish_again(&world.bus, &[forged]).await;
    eventually_noted(&world, &["altered: 1"]).await;
    assert_eq!(readings(&world.copy).await, [1, 2, 3]);
    let altered = "1 events were skipped whose position was applied before";
    eventually_says(&world.reader.health, PART, altered).await;
    let lines = logged("is not what the outbox has");
    let is_logged = |line: &String| line.contains(&second) && line.contains("event.sequence=5");
    assert!(lines.iter().any(is_logged), "{lines:?}");

    // The anomaly survives a restart, and is forgotten once the stream is recreated.
    world.stop_reader().await;
    world.start_reader().await;
    eventually_says(&world.reader.health, PART, altered).await;
    jetstream(&world.bus)
        .delete_stream("SENSORS")
        .await
        .unwrap();
    world.append(4..=4).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4]).await;
    eventually_says(&world.reader.health, PART, "Ok(\"applied up to 4\")").await;
    world.stop().await;
}

#[tokio::test]
async fn events_by_hand_are_applied_logged_and_counted_and_many_are_summed_up() {
    keep_log();
    let mut world = started().await;
    publish_by_hand(&world.bus, None, &read("a hand", 100)).await;
    eventually_noted(&world, &["by-hand: 1"]).await;
    let by_hand = "without a position, published by hand: applied";
    let is_logged = |line: &String| line.starts_with("WARN") && line.contains("event.sequence=3");
    assert!(
        logged(by_hand).iter().any(is_logged),
        "{:?}",
        logged(by_hand)
    );
    world.stop_reader().await;
    for value in 101..=140 {
        publish_by_hand(&world.bus, None, &read("a hand", value)).await;
    }
    world.start_reader().await;
    eventually_noted(&world, &["by-hand: 41"]).await;
    eventually("the log sums them up", async || {
        let lines = logged("and more in the same batch");
        lines
            .iter()
            .any(|line| line.contains("published by hand"))
            .then_some(())
            .ok_or(lines)
    })
    .await;
    eventually_says(&world.reader.health, PART, "Ok").await;
    world.stop().await;
}
