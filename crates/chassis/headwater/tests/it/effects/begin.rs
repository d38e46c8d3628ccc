//! Where an effect begins.

use headwater::effect::{self, Outcome, Start};
use headwater::{Effect, Envelope};

use super::{Bell, a_moment_later, begun, config, service};
use crate::rebuild::Place;
use crate::support::{append, eventually_says, eventually_stored, reads};

/// The source is down when the effect is first started, and an event is recorded before it answers.
#[tokio::test(flavor = "multi_thread")]
async fn an_effect_begins_at_its_first_start_and_a_restart_does_not_move_that() {
    let mut place = Place::start().await;
    append(&place.source, reads(1..=30)).await;
    let old: Vec<i64> = (1..=30).collect();
    eventually_stored(&place.bus, "sensors", &old).await;
    place.stop_source().await;
    a_moment_later(&place.source).await;

    let bell = Bell::default();
    let house = service(&place, bell.clone(), config(&[])).await;
    eventually_says(&house.health, "bell from sensors", "where to begin").await;
    append(&place.source, reads(31..=32)).await;
    a_moment_later(&place.source).await;
    house.stop().await;

    let house = service(&place, bell.clone(), config(&[])).await;
    place.start_source();
    bell.eventually(&[31, 32]).await;
    house.stop().await;
    let house = begun(&place, &bell, config(&[])).await;
    append(&place.source, reads(33..=33)).await;
    bell.eventually(&[31, 32, 33]).await;
    house.stop().await;
    place.relay.stop().await;
}

/// A former version of [`Bell`], which reads another source.
#[derive(Debug)]
struct Elsewhere;

impl Effect for Elsewhere {
    const NAME: &'static str = Bell::NAME;
    const SOURCES: &'static [&'static str] = &["elsewhere"];
    const EVENTS: &'static [&'static str] = Bell::EVENTS;

    async fn perform(&self, _: &Envelope, _: &str) -> Outcome {
        Outcome::Done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_source_that_is_added_later_the_past_is_not_performed() {
    let place = Place::start().await;
    let house = service(&place, Elsewhere, config(&[])).await;
    append(&place.source, reads(1..=2)).await;
    a_moment_later(&place.source).await;
    house.stop().await;

    let bell = Bell::default();
    let house = begun(&place, &bell, config(&[])).await;
    eventually_says(&house.health, "bell from sensors", "applied up to 2").await;
    append(&place.source, reads(3..=3)).await;
    bell.eventually(&[3]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_may_begin_with_the_first_event() {
    let place = Place::start().await;
    append(&place.source, reads(1..=3)).await;
    a_moment_later(&place.source).await;
    let bell = Bell::default();
    let config = effect::Config {
        start: Start::Beginning,
        ..config(&[])
    };
    let house = service(&place, bell.clone(), config).await;
    bell.eventually(&[1, 2, 3]).await;
    house.stop().await;
    place.relay.stop().await;
}
