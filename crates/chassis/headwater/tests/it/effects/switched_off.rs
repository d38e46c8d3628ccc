//! Effects that switch themselves off.

use headwater::database::Snapshot;
use headwater::effect::Outcome;
use serde_json::json;

use super::{
    Bell, Does, LONG, SHORT, ask, begun, config, eventually_left, failed, key, run, service,
};
use crate::rebuild::Place;
use crate::support::{append, dead_letters, eventually, eventually_says, integers, is, reads};

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_that_only_fails_for_long_is_switched_off_until_it_is_resumed() {
    const RESUME: &str = "projections.resume";
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[LONG; 3])).await;
    bell.on(1, failed(1));
    bell.on(2, failed(1));
    append(&place.source, reads(1..=1)).await;
    bell.eventually(&[1]).await;
    let since = "SELECT count(failing_since) AS n FROM headwater_effect";
    let fails = async |wanted| {
        eventually("the state of the receiver", async || {
            let fails = house
                .db
                .read(move |snapshot: &Snapshot| integers(snapshot, since));
            is(fails.await.unwrap()[0], &wanted)
        })
        .await;
    };
    fails(1).await;
    // A success in between begins the count again.
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[1, 3]).await;
    fails(0).await;
    append(&place.source, reads(2..=2)).await;
    bell.eventually(&[1, 2, 3]).await;
    fails(1).await;
    assert_eq!(house.health.parts().get("bell"), None);
    let five_days = "UPDATE headwater_effect SET failing_since = failing_since - 432000000";
    run(&house.db, five_days).await;
    bell.on(4, failed(1));
    append(&place.source, reads(4..=4)).await;
    eventually_says(&house.health, "bell", "all attempts have failed since").await;
    append(&place.source, reads(5..=5)).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    house.stop().await;
    let house = service(&place, bell.clone(), config(&[LONG; 3])).await;
    eventually_says(&house.health, "bell", "switched itself off").await;
    eventually_says(&house.health, "bell work", "3 intents wait").await;
    ask(&place, "status", json!({})).await;
    assert_eq!(bell.values(), [1, 3, 2, 4], "nothing while it is paused");

    // Failures after that are counted from then on.
    for value in [1, 2, 4, 5] {
        bell.on(value, failed(1));
    }
    ask(&place, RESUME, json!({"projection": "bell"})).await;
    bell.eventually(&[1, 1, 2, 2, 3, 4, 4, 5]).await;
    eventually("the failures to be recorded", async || {
        let later = "SELECT count(*) AS n FROM headwater_intent WHERE due_at > 0";
        let later = house
            .db
            .read(move |snapshot: &Snapshot| integers(snapshot, later));
        is(later.await.unwrap()[0], &4)
    })
    .await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    bell.eventually(&[1, 1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 5]).await;
    eventually_left(&house.db, 0).await;
    assert_eq!(house.health.parts().get("bell"), None);
    house.stop().await;
    place.relay.stop().await;
}

/// Work that was given up says nothing about the receiver, and neither does a failure of which no
/// attempt is left.
#[tokio::test(flavor = "multi_thread")]
async fn failures_long_after_one_another_do_not_switch_an_effect_off() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[SHORT])).await;
    let since = "SELECT count(failing_since) AS n FROM headwater_effect";
    let fails = async || {
        let fails = house
            .db
            .read(move |snapshot: &Snapshot| integers(snapshot, since));
        fails.await.unwrap()[0]
    };
    bell.on(1, failed(2));
    append(&place.source, reads(1..=1)).await;
    eventually("a dead letter", async || {
        is(dead_letters(&house.db).await.len(), &1)
    })
    .await;
    assert_eq!(fails().await, 0, "after the last attempt");
    bell.on(2, [Does::Answers(Outcome::GiveUp("no".to_owned()))]);
    append(&place.source, reads(2..=2)).await;
    eventually("two dead letters", async || {
        is(dead_letters(&house.db).await.len(), &2)
    })
    .await;
    assert_eq!(fails().await, 0, "after giving up");

    // Nor does it switch off a receiver that has only failed for long.
    bell.on(3, [Does::Answers(Outcome::retry_after("busy", LONG))]);
    append(&place.source, reads(3..=3)).await;
    eventually("a failure", async || is(fails().await, &1)).await;
    let five_days = "UPDATE headwater_effect SET failing_since = failing_since - 432000000";
    run(&house.db, five_days).await;
    bell.on(4, [Does::Answers(Outcome::GiveUp("no".to_owned()))]);
    append(&place.source, reads(4..=4)).await;
    eventually_left(&house.db, 1).await;
    house.stop().await;
    let house = begun(&place, &bell, config(&[SHORT])).await;
    append(&place.source, reads(5..=5)).await;
    bell.eventually(&[1, 1, 2, 3, 4, 5]).await;
    house.stop().await;
    place.relay.stop().await;
}

/// The pause cannot be stored at first: then nothing is.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_receiver_that_wants_no_more_is_stored_with_the_pause() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Answers(Outcome::SwitchOff("gone".to_owned()))]);
    let house = begun(&place, &bell, config(&[LONG])).await;
    run(
        &house.db,
        "CREATE TRIGGER no_pause BEFORE INSERT ON headwater_pause
         BEGIN SELECT raise(ABORT, 'no pause'); END",
    )
    .await;
    append(&place.source, reads(1..=1)).await;
    bell.eventually(&[1]).await;
    append(&place.source, reads(2..=2)).await;
    bell.eventually(&[1, 2]).await;
    eventually_left(&house.db, 1).await;
    assert!(dead_letters(&house.db).await.is_empty());
    run(&house.db, "DROP TRIGGER no_pause").await;
    eventually_says(&house.health, "bell", "switched itself off: gone").await;
    assert_eq!(dead_letters(&house.db).await.len(), 1);
    assert_eq!(bell.values(), [1, 2]);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_wants_no_more_switches_the_effect_off() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Answers(Outcome::SwitchOff("gone".to_owned()))]);
    let house = begun(&place, &bell, config(&[LONG])).await;
    append(&place.source, reads(1..=1)).await;
    eventually_says(&house.health, "bell", "switched itself off: gone").await;
    let gone = format!("intent {}: gone", key(&place, 1));
    assert_eq!(dead_letters(&house.db).await, [gone]);
    append(&place.source, reads(2..=2)).await;
    ask(&place, "projections.resume", json!({"projection": "bell"})).await;
    bell.eventually(&[1, 2]).await;
    house.stop().await;
    place.relay.stop().await;
}
