//! The ledger of intents: what is performed, under which key, and what is not.

use headwater::database::Snapshot;
use headwater::effect::Outcome;
use headwater::{Effect as _, Error, Process, Service};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Bell, Does, LONG, ask, begun, config, eventually_left, failed, key, run};
use crate::rebuild::{HOUSE, House, Place};
use crate::shared::Sharing;
use crate::support::{
    MIGRATIONS, Readings, append, dead_letters, eventually, eventually_says, eventually_stored,
    integers, is, publish_by_hand, read, readings, reads,
};

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_performed_with_a_key_that_names_it_and_a_restart_repeats_nothing() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=20)).await;
    append(&place.source, vec![read("silent", 21)]).await;
    let all: Vec<i64> = (1..=20).collect();
    bell.eventually(&all).await;
    for value in 1..=20 {
        assert_eq!(bell.keys_of(value), [key(&place, value.unsigned_abs())]);
    }
    eventually_left(&house.db, 0).await;
    house.stop().await;

    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(22..=22)).await;
    bell.eventually(&[all, vec![22]].concat()).await;
    house.stop().await;
    place.relay.stop().await;
}

/// The work is done, and nothing is recorded.
#[tokio::test(flavor = "multi_thread")]
async fn work_that_was_not_recorded_is_done_again_with_the_same_key() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Hangs]);
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=2)).await;
    bell.eventually(&[1, 2]).await;
    eventually_left(&house.db, 1).await;
    house.abort().await;
    let house = begun(&place, &bell, config(&[])).await;
    bell.eventually(&[1, 1, 2]).await;
    assert_eq!(bell.keys_of(1), vec![key(&place, 1); 2]);
    eventually_left(&house.db, 0).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_performs_nothing_again_and_an_effect_is_never_rebuilt() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(3, failed(1));
    let stop = CancellationToken::new();
    let process = Process::on_free_ports(stop.clone()).await.unwrap();
    let service = Service::start(HOUSE, MIGRATIONS, place.config(), process).await;
    let mut service = service.unwrap();
    service.project(Sharing(Readings)).await.unwrap();
    service.effect(bell.clone(), config(&[LONG])).await.unwrap();
    let house = House::serve(service, stop);
    eventually_says(&house.health, "bell from sensors", "applied up to").await;
    append(&place.source, reads(1..=3)).await;
    house.eventually(&[1, 2, 3]).await;
    bell.eventually(&[1, 2, 3]).await;
    run(&house.db, "DELETE FROM reading").await;
    // The only one that can be rebuilt.
    ask(&place, "rebuild", json!({})).await;
    place.eventually_rebuilt("done").await;
    assert_eq!(readings(&house.db).await, [1, 2, 3]);
    for endpoint in ["rebuild", "verify"] {
        let refused = place.refusal(endpoint, json!({"projection": "bell"})).await;
        assert!(
            refused.starts_with("400: bell is an effect: it has no tables"),
            "{refused}"
        );
    }
    eventually_left(&house.db, 1).await;
    append(&place.source, reads(4..=4)).await;
    bell.eventually(&[1, 2, 3, 4]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_store_has_no_effects() {
    let place = Place::start().await;
    let stop = CancellationToken::new();
    let process = Process::on_free_ports(stop).await.unwrap();
    let service = Service::start_read_store(HOUSE, MIGRATIONS, place.config(), process).await;
    let refused = service
        .unwrap()
        .effect(Bell::default(), config(&[]))
        .await
        .unwrap_err();
    let Error::EffectOfReadStore { service, effect } = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((service, effect), (HOUSE.name, Bell::NAME));
    place.relay.stop().await;
}

/// A newer program wrote the first intent, and was rolled back. The second one has the same key.
#[tokio::test(flavor = "multi_thread")]
async fn an_intent_in_a_newer_version_and_those_of_its_key_wait_for_an_upgrade() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, failed(1));
    let house = begun(&place, &bell, config(&[LONG])).await;
    append(&place.source, vec![read("cellar", 1), read("cellar", 2)]).await;
    bell.eventually(&[1]).await;
    eventually_left(&house.db, 2).await;
    eventually("the failure to be recorded", async || {
        let failed = "SELECT max(attempts) AS n FROM headwater_intent";
        let failed = house
            .db
            .read(move |snapshot: &Snapshot| integers(snapshot, failed));
        is(failed.await.unwrap()[0], &1)
    })
    .await;
    run(
        &house.db,
        "UPDATE headwater_intent SET subject = replace(subject, '.v1.', '.v9.')
         WHERE attempts = 1",
    )
    .await;
    house.stop().await;

    let house = begun(&place, &bell, config(&[])).await;
    let newer = "1 are held: sensors.v9.read is newer than this service knows: upgrade house";
    eventually_says(&house.health, "bell work", newer).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[1, 3]).await;
    eventually_left(&house.db, 2).await;
    assert!(dead_letters(&house.db).await.is_empty());
    let older = "UPDATE headwater_intent SET subject = replace(subject, '.v9.', '.v1.')";
    run(&house.db, older).await;
    house.stop().await;

    let house = begun(&place, &bell, config(&[])).await;
    bell.eventually(&[1, 1, 2, 3]).await;
    eventually_left(&house.db, 0).await;
    house.stop().await;
    place.relay.stop().await;
}

/// A dead letter of the worker comes back at once; it is not decided again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_is_not_decided_again_and_poison_is() {
    let place = Place::start().await;
    let bell = Bell::default();
    bell.on(1, [Does::Answers(Outcome::GiveUp("no".to_owned()))]);
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, vec![read("timer", 1), read("attic", -2)]).await;
    eventually_left(&house.db, 1).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    eventually("two dead letters", async || {
        is(dead_letters(&house.db).await.len(), &2)
    })
    .await;
    assert_eq!(bell.values(), [1]);
    run(&house.db, "INSERT INTO label (value) VALUES (1)").await;
    ask(&place, "dead-letters.retry", json!({"all": {}})).await;
    bell.eventually(&[-2, 1, 1]).await;
    assert_eq!(readings(&house.db).await, [1]);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_published_by_hand_has_no_key_and_is_not_performed() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(1..=1)).await;
    eventually_stored(&place.bus, "sensors", &[1]).await;
    publish_by_hand(&place.bus, None, &read("attic", 2)).await;
    // A message of another stream, copied.
    publish_by_hand(&place.bus, Some("users.X.7"), &read("attic", 4)).await;
    eventually_says(&house.health, "bell from sensors", "applied up to 1").await;
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[1, 3]).await;
    assert!(dead_letters(&house.db).await.is_empty());
    house.stop().await;
    place.relay.stop().await;
}
