//! Attempts: when an effect is tried again, and what waits meanwhile.

use headwater::effect::{self, Outcome};
use serde_json::json;

use super::{Bell, Does, LONG, SHORT, ask, begun, config, eventually_left, failed, key, run};
use crate::rebuild::Place;
use crate::support::{append, dead_letters, read, reads};

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_repeated_by_the_schedule_under_the_same_key_and_is_then_a_dead_letter() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, failed(2));
    bell.on(2, failed(5).chain([Does::Panics]));
    bell.on(3, [Does::Answers(Outcome::GiveUp("not wanted".to_owned()))]);
    let house = begun(&place, &bell, config(&[SHORT, SHORT])).await;
    append(&place.source, reads(1..=3)).await;
    let twice = [1, 1, 1, 2, 2, 2, 3];
    bell.eventually(&twice).await;
    eventually_left(&house.db, 0).await;
    assert_eq!(bell.keys_of(1), vec![key(&place, 1); 3]);
    let mut letters = dead_letters(&house.db).await;
    letters.sort();
    let intent = |position| format!("intent {}", key(&place, position));
    let last = format!("{}: nobody hears it (attempt 3, the last)", intent(2));
    let unwanted = format!("{}: not wanted", intent(3));
    assert_eq!(letters, [last, unwanted]);

    // Again three attempts, the last of which panics; then one that succeeds.
    let all = json!({"all": {}});
    let answer = ask(&place, "dead-letters.retry", all.clone()).await;
    assert_eq!(
        (&answer["applied"], &answer["left"]),
        (&json!(2), &json!(0))
    );
    bell.eventually(&[1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3]).await;
    eventually_left(&house.db, 0).await;
    let panicked = format!(
        "{}: performing it panicked (attempt 3, the last)",
        intent(2)
    );
    assert_eq!(dead_letters(&house.db).await, [panicked]);
    assert_eq!(bell.keys_of(2), vec![key(&place, 2); 6]);
    let listed = ask(&place, "dead-letters.list", json!({})).await;
    let discard = json!({"id": listed["letters"][0]["id"], "reason": "done by hand"});
    ask(&place, "dead-letters.discard", discard).await;
    append(&place.source, reads(4..=4)).await;
    bell.eventually(&[1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 4]).await;
    assert!(dead_letters(&house.db).await.is_empty());
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_intents_of_a_key_wait_for_the_one_before_until_it_is_done_or_dead() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[LONG])).await;
    bell.on(1, failed(1));
    bell.on(4, failed(2));
    let cellar = |value| read("cellar", value);
    append(&place.source, vec![cellar(1), cellar(2), read("attic", 3)]).await;
    bell.eventually(&[1, 3]).await;
    eventually_left(&house.db, 2).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    bell.eventually(&[1, 1, 2, 3]).await;
    assert_eq!(bell.keys_of(2), [key(&place, 2)]);

    append(&place.source, vec![cellar(4), cellar(5), cellar(6)]).await;
    bell.eventually(&[1, 1, 2, 3, 4]).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    bell.eventually(&[1, 1, 2, 3, 4, 4, 5, 6]).await;
    let order: Vec<i64> = bell.values().into_iter().filter(|it| *it != 3).collect();
    assert_eq!(order, [1, 1, 2, 4, 4, 5, 6]);
    eventually_left(&house.db, 0).await;
    assert_eq!(dead_letters(&house.db).await.len(), 1, "the fourth");
    house.stop().await;
    place.relay.stop().await;
}

/// Two of three attempts never end: the third does the rest meanwhile, and no more than three are
/// under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_is_tried_again_and_holds_up_no_other() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Hangs]);
    bell.on(2, [Does::Hangs]);
    let limited = effect::Config {
        at_once: 3,
        timeout: LONG,
        ..config(&[LONG])
    };
    let house = begun(&place, &bell, limited.clone()).await;
    append(&place.source, reads(1..=40)).await;
    let all: Vec<i64> = (1..=40).collect();
    bell.eventually(&all).await;
    eventually_left(&house.db, 2).await;
    // The third one hangs, too.
    for value in 41..=44 {
        bell.on(value, [Does::Hangs]);
    }
    append(&place.source, reads(41..=44)).await;
    eventually_left(&house.db, 6).await;
    bell.eventually(&(1..=41).collect::<Vec<i64>>()).await;
    ask(&place, "status", json!({})).await;
    assert_eq!((bell.values().len(), bell.received().most), (41, 3));
    house.abort().await;

    bell.on(1, [Does::Hangs]);
    for value in 42..=44 {
        bell.on(value, []);
    }
    let hasty = effect::Config {
        timeout: SHORT,
        schedule: vec![SHORT],
        ..limited
    };
    let house = begun(&place, &bell, hasty).await;
    // The first one hangs again.
    bell.eventually(&[vec![1, 1, 1, 2], (2..=41).collect(), (41..=44).collect()].concat())
        .await;
    eventually_left(&house.db, 0).await;
    house.stop().await;
    place.relay.stop().await;
}
