//! Projections that an operator pauses.

use headwater::health::State;
use headwater::projection::Pause;
use serde_json::{Value, json};

use crate::rebuild::{Doubled, House, Place};
use crate::support::{Readings, append, eventually, eventually_says, is, readings, reads};

const PAUSE: &str = "projections.pause";
const RESUME: &str = "projections.resume";

/// Starts a service that applies the readings 1 to 3, then pauses its projection.
async fn paused() -> (Place, House, Value) {
    let place = Place::start().await;
    let house = place.service(Readings).await;
    append(&place.source, reads(1..=3)).await;
    house.eventually(&[1, 2, 3]).await;
    let status = ask(&place, PAUSE, json!({"reason": "a look at it"})).await;
    (place, house, status)
}

async fn ask(place: &Place, endpoint: &str, request: Value) -> Value {
    eventually("an answer", async || {
        place.ask(endpoint, request.clone()).await
    })
    .await
}

/// The status of the projection, once the service answers.
async fn status(place: &Place) -> Value {
    ask(place, "status", json!({})).await["projections"][0].clone()
}

/// Waits until the consumer has delivered the event at sequence `last`.
async fn eventually_delivered(place: &Place, last: u64) {
    let jetstream = crate::support::jetstream(&place.bus);
    let stream = jetstream.get_stream("SENSORS").await.unwrap();
    eventually("the events to be delivered", async || {
        let info = stream.consumer_info("readings").await;
        let delivered = info.map_err(|error| error.to_string())?.delivered;
        is(delivered.stream_sequence, &last).map_err(|seen| seen.to_string())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_projection_stands_still_says_why_and_catches_up_afterwards() {
    let (place, house, status) = paused().await;
    assert_eq!(status["paused"]["reason"], "a look at it");
    append(&place.source, reads(4..=50)).await;
    eventually_delivered(&place, 50).await;
    assert_eq!(readings(&house.db).await, [1, 2, 3]);
    let state = house.health.parts().remove("readings");
    assert!(
        matches!(&state, Some(State::Degraded(why)) if why.contains("a look at it") && why.contains("since 20")),
        "{state:?}"
    );
    assert!(house.health.is_ready(), "the store can still be read");

    let status = ask(&place, RESUME, json!({})).await;
    assert_eq!(status["paused"], Value::Null);
    let all: Vec<i64> = (1..=50).collect();
    house.eventually(&all).await;
    assert_eq!(house.health.parts().get("readings"), None);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_restart() {
    let (place, house, before) = paused().await;
    house.stop().await;
    append(&place.source, reads(4..=9)).await;
    let house = place.service(Readings).await;
    eventually_says(&house.health, "readings", "a look at it").await;
    assert_eq!(status(&place).await["paused"], before["paused"]);
    eventually_delivered(&place, 9).await;
    assert_eq!(readings(&house.db).await, [1, 2, 3]);
    ask(&place, RESUME, json!({"projection": "readings"})).await;
    house.eventually(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    house.stop().await;
    let house = place.service(Readings).await;
    assert_eq!(status(&place).await["paused"], Value::Null);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pause_has_a_new_reason_and_the_old_time() {
    let (place, house, before) = paused().await;
    let before: Pause = serde_json::from_value(before["paused"].clone()).unwrap();
    let again = ask(&place, PAUSE, json!({"reason": "another"})).await;
    let again: Pause = serde_json::from_value(again["paused"].clone()).unwrap();
    assert_eq!((again.since, &*again.reason), (before.since, "another"));
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_is_neither_rebuilt_nor_verified_until_it_goes_on() {
    let (place, house, _) = paused().await;
    for endpoint in ["rebuild", "verify"] {
        let refused = place.refusal(endpoint, json!({})).await;
        assert!(refused.starts_with("409: readings is paused"), "{refused}");
    }
    ask(&place, RESUME, json!({})).await;
    ask(&place, "rebuild", json!({})).await;
    place.eventually_rebuilt("done").await;
    house.stop().await;
    place.relay.stop().await;
}

/// A required rebuild does not wait for the operator, but does not resume the projection.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_folded_while_paused_and_the_new_store_is_paused() {
    let (place, house, before) = paused().await;
    house.stop().await;
    append(&place.source, reads(4..=5)).await;
    let house = place.service(Doubled).await;
    place.eventually_rebuilt("done").await;
    let rebuilt = readings(&house.db).await;
    assert!(rebuilt.starts_with(&[2, 4, 6]), "{rebuilt:?}");
    assert_eq!(status(&place).await["paused"], before["paused"]);
    append(&place.source, reads(6..=8)).await;
    eventually_delivered(&place, 8).await;
    assert_eq!(readings(&house.db).await, rebuilt);
    house.stop().await;

    let house = place.service(Doubled).await;
    assert_eq!(status(&place).await["paused"], before["paused"]);
    ask(&place, RESUME, json!({})).await;
    house.eventually(&[2, 4, 6, 8, 10, 12, 14, 16]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_needs_a_reason_and_a_projection_that_there_is() {
    let (place, house, _) = paused().await;
    for (request, expected) in [
        (json!({"reason": " "}), "400: say why"),
        (json!({}), "400: send"),
        (
            json!({"reason": "x", "projection": "none"}),
            "404: house has the projections readings",
        ),
    ] {
        let refused = place.refusal(PAUSE, request).await;
        assert!(refused.starts_with(expected), "{refused}");
    }
    house.stop().await;
    place.relay.stop().await;
}

/// The pauses wait for the busy writer. Other endpoints still answer.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_take_long_hold_up_no_other_endpoint() {
    let place = Place::start().await;
    let house = place.service(Readings).await;
    status(&place).await;
    let (release, released) = std::sync::mpsc::channel::<()>();
    let busy = house.db.write(move |_| {
        released.recv().unwrap();
        Ok::<_, sea_orm::DbErr>(())
    });
    let pausing = || place.ask(PAUSE, json!({"reason": "a look at it"}));
    let meanwhile = async {
        status(&place).await;
        ask(&place, "dead-letters.list", json!({})).await;
        release.send(()).unwrap();
    };
    let (written, first, second, third, ()) =
        tokio::join!(busy, pausing(), pausing(), pausing(), meanwhile);
    written.unwrap();
    for paused in [first, second, third] {
        assert_eq!(paused.unwrap()["paused"]["reason"], "a look at it");
    }
    house.stop().await;
    place.relay.stop().await;
}
