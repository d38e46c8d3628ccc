//! Intents for later.

use super::{Bell, begun, config, eventually_left, run};
use crate::rebuild::Place;
use crate::support::{Tasks, append, eventually_says, read, readings, reads};

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_is_stored_survives_a_restart_and_fires_once() {
    let place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, vec![read("timer", 1), read("attic", 2)]).await;
    bell.eventually(&[2]).await;
    eventually_left(&house.db, 1).await;
    assert_eq!(readings(&house.db).await, [1], "in the same transaction");
    house.abort().await;
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[2, 3]).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    bell.eventually(&[1, 2, 3]).await;
    eventually_left(&house.db, 0).await;
    house.stop().await;
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(4..=4)).await;
    bell.eventually(&[1, 2, 3, 4]).await;
    house.stop().await;
    place.relay.stop().await;
}

/// At first the source is down, then only its relay: what it recorded is in no stream yet, and may
/// be what stops the timer.
#[tokio::test(flavor = "multi_thread")]
async fn a_timer_waits_until_all_is_read_that_was_recorded_when_it_was_due() {
    let mut place = Place::start().await;
    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, vec![read("timer", 1)]).await;
    eventually_left(&house.db, 1).await;
    place.stop_source().await;
    append(&place.source, vec![read("attic", 2), read("attic", 3)]).await;
    run(&house.db, "UPDATE headwater_intent SET due_at = 0").await;
    let says = async |text| eventually_says(&house.health, "bell work", text).await;
    says("timers that are due wait: sensors does not say what it has recorded").await;
    assert!(bell.values().is_empty(), "before its source answers");
    let mut answering = Tasks::none();
    answering.operator(&place.source, &place.bus);
    says("wait: the events of sensors up to 3 are not read yet, only up to 1").await;
    assert!(bell.values().is_empty(), "before its source's events");
    answering.stop().await;
    place.start_source();
    bell.eventually(&[1, 2, 3]).await;
    says("0 intents wait").await;
    house.stop().await;
    place.relay.stop().await;
}
