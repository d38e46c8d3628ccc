//! Events that cannot be applied: their keys are blocked, while other keys continue.

use std::time::Duration;

use axum::response::IntoResponse as _;
use headwater::database::Tx;
use headwater::http::Problem;
use headwater::projection::{Behind, as_of};
use headwater::{ApplyError, Envelope, Event, Positions, Projection, outbox};

use crate::support::{
    Readings, SensorRead, World, append, dead_letters, eventually, eventually_readings,
    eventually_says, integers, is, keep_log, logged, read,
};

/// Waits until these are the dead letters, as `key: reason`.
async fn eventually_dead(world: &World, wanted: &[&str]) {
    let wanted: Vec<String> = wanted.iter().map(|&text| text.to_owned()).collect();
    eventually("the dead letters are there", async || {
        is(dead_letters(&world.copy).await, &wanted)
    })
    .await;
}

async fn append_all(world: &World, events: &[(&str, i64)]) {
    let events: Vec<SensorRead> = events
        .iter()
        .map(|&(sensor, value)| read(sensor, value))
        .collect();
    append(&world.source, events).await;
}

#[tokio::test]
async fn a_poison_event_is_parked_and_only_its_key_waits_behind_it() {
    keep_log();
    let mut world = World::start().await;
    append_all(
        &world,
        &[
            ("attic", 1),
            ("poisoned cellar", -1),
            ("attic", 2),
            ("poisoned cellar", 3),
        ],
    )
    .await;
    eventually_readings(&world.copy, &[1, 2]).await;
    let behind = "key poisoned cellar: waits behind a parked event";
    eventually_dead(&world, &["key poisoned cellar: below zero", behind]).await;
    eventually_says(
        &world.reader.health,
        "readings from sensors",
        "applied up to 4",
    )
    .await;

    world.stop_reader().await;
    world.start_reader().await;
    append_all(&world, &[("poisoned cellar", 4), ("attic", 5)]).await;
    eventually_readings(&world.copy, &[1, 2, 5]).await;
    eventually_dead(&world, &["key poisoned cellar: below zero", behind, behind]).await;
    let positions = "SELECT position AS n FROM headwater_dead_letter ORDER BY id";
    let positions = world
        .copy
        .read(move |snapshot| integers(snapshot, positions))
        .await
        .unwrap();
    assert_eq!(positions, [2, 4, 5], "in their order");
    let lines = logged("poisoned cellar");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("ERROR") && line.contains("below zero"))
    );
    world.stop().await;
}

#[tokio::test]
async fn a_panic_in_apply_is_poison() {
    let world = World::start().await;
    append_all(&world, &[("attic", 1), ("cellar", -2), ("attic", 2)]).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    eventually_dead(&world, &["key cellar: applying it panicked"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_poison_event_leaves_no_half_of_its_effect() {
    let world = World::start().await;
    append_all(&world, &[("attic", 1), ("cellar", -3), ("attic", 2)]).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    eventually_dead(&world, &["key cellar: half-way"]).await;
    world.stop().await;
}

#[tokio::test]
async fn an_event_whose_key_cannot_be_read_is_parked_alone() {
    let world = World::start().await;
    append_all(&world, &[("attic", 1)]).await;
    eventually_readings(&world.copy, &[1]).await;
    let partition = headwater::partition("attic");
    let subject = format!("sensors.v1.read.{partition}");
    let jetstream = crate::support::jetstream(&world.bus);
    let publish = jetstream.publish(subject, vec![0xff, 0xff].into());
    publish.await.unwrap().await.unwrap();
    // In the same partition.
    append_all(&world, &[("attic", 2), ("attic", 3)]).await;
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    let letters = dead_letters(&world.copy).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(
        letters[0].starts_with("event at sequence 2: ") && letters[0].contains("does not decode"),
        "{letters:?}"
    );
    world.stop().await;
}

/// Otherwise a client would believe that a dead-lettered event never existed.
#[tokio::test]
async fn whoever_asks_for_a_position_that_is_parked_is_told() {
    let mut world = World::start().await;
    world.stop_reader().await;
    let (copy, bus) = (world.copy.clone(), world.bus.clone());
    let progress = world.reader.projection(Readings, &copy, &bus).await;
    append_all(&world, &[("attic", 1), ("cellar", -1), ("cellar", 3)]).await;
    let (soon, late) = (Duration::from_secs(1), Duration::from_secs(30));
    let asked = |text: &str| text.parse::<Positions>().unwrap();
    progress.wait(&asked("sensors:1"), late).await.unwrap();
    for (position, count) in [("sensors:2", 1), ("sensors:3", 2)] {
        let blocked = eventually("both are dead letters", async || {
            match progress.wait(&asked(position), late).await {
                Err(Behind::DeadLettered {
                    position: 2,
                    events,
                    lane,
                    reason,
                    ..
                }) if events == count => Ok((lane, reason)),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert_eq!(blocked, ("key cellar".to_owned(), "below zero".to_owned()));
    }
    append_all(&world, &[("attic", 4)]).await;
    eventually_readings(&world.copy, &[1, 4]).await;
    let at = world.copy.read(as_of::<Readings>).await.unwrap();
    assert_eq!(
        (at.applied.clone(), at.parked.clone(), at.without_gaps()),
        (asked("sensors:4"), asked("sensors:2"), asked("sensors:1"))
    );
    let after = progress.wait(&asked("sensors:4"), late).await;
    let problem = Problem::from(after.unwrap_err()).into_response();
    assert_eq!(problem.status(), 503);
    assert_eq!(problem.headers()["retry-after"], "10");
    // Known at once, also after a restart.
    world.stop_reader().await;
    let again = world.reader.projection(Readings, &copy, &bus).await;
    let blocked = again.wait(&asked("sensors:3"), soon).await;
    assert!(
        matches!(blocked, Err(Behind::DeadLettered { .. })),
        "{blocked:?}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_poison_event_that_comes_again_is_not_parked_twice() {
    let mut world = World::start().await;
    append_all(&world, &[("cellar", -1), ("attic", 1)]).await;
    eventually_readings(&world.copy, &[1]).await;
    world.stop_reader().await;
    crate::support::jetstream(&world.bus)
        .delete_stream("SENSORS")
        .await
        .unwrap();
    world.start_reader().await;
    append_all(&world, &[("attic", 2)]).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    eventually_dead(&world, &["key cellar: below zero"]).await;
    world.stop().await;
}

/// A projection appends this event to its own outbox for each reading that it applies.
#[derive(Clone, PartialEq, prost::Message)]
struct ReadingHeard {
    #[prost(string, tag = "1")]
    sensor: String,
}

impl Event for ReadingHeard {
    const SUBJECT: &'static str = "house.v1.heard";

    fn key(&self) -> &str {
        &self.sensor
    }
}

/// Appends an event for each reading before it fails.
#[derive(Debug)]
struct Hearing;

impl Projection for Hearing {
    const NAME: &'static str = "hearing";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let SensorRead { sensor, .. } = event.decode()?;
            outbox::append(tx, &ReadingHeard { sensor })?;
        }
        Err(ApplyError::Poison("too late".to_owned()))
    }
}

#[tokio::test]
async fn what_a_poison_event_appended_moves_no_head() {
    let mut world = World::start().await;
    let (copy, bus) = (world.copy.clone(), world.bus.clone());
    world.reader.projection(Hearing, &copy, &bus).await;
    append_all(&world, &[("attic", 1), ("cellar", 2)]).await;
    eventually("both are dead letters", async || {
        is(dead_letters(&copy).await.len(), &2)
    })
    .await;
    let rows = copy.read(|snapshot| outbox::page(snapshot, 1, 10)).await;
    assert_eq!(rows.unwrap(), []);
    assert_eq!(*copy.head().borrow(), 0);
    world.stop().await;
}
