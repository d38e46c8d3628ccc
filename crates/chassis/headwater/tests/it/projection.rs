//! Projections: each event is applied once, wherever reading resumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use headwater::database::Tx;
use headwater::projection::{Behind, Config, Progress, Runner};
use headwater::{ApplyError, Envelope, Health, Projection};
use sea_orm::DbErr;

use crate::support::{
    GaugeRead, Readings, SensorRead, Tasks, World, append, begin_epoch, broker, bus, eventually,
    eventually_readings, eventually_says, eventually_stored, execute, folder, integers, is,
    jetstream, keep_reading, open, projecting, publish_again, publish_by_hand, read, readings,
    reads, relaying,
};

#[tokio::test]
async fn events_are_folded_in_order() {
    let world = World::start().await;
    world.append(1..=3).await;
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    world.append(4..=300).await;
    eventually_readings(&world.copy, &(1..=300).collect::<Vec<_>>()).await;
    eventually_says(
        &world.reader.health,
        "readings from sensors",
        "Ok(\"applied up to 300\")",
    )
    .await;
    world.stop().await;
}

#[tokio::test]
async fn an_event_that_is_published_twice_is_applied_once() {
    let world = World::start().await;
    world.append(1..=40).await;
    let events = eventually_stored(&world.bus, "sensors", &(1..=40).collect::<Vec<_>>()).await;
    eventually_readings(&world.copy, &(1..=40).collect::<Vec<_>>()).await;
    publish_again(&world.bus, &events).await;
    world.append(41..=42).await;
    eventually_readings(&world.copy, &(1..=42).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_restarted_projection_continues_where_it_was() {
    let mut world = World::start().await;
    for round in 0..4 {
        world.append(round * 3 + 1..=round * 3 + 3).await;
        eventually_readings(&world.copy, &(1..=round * 3 + 3).collect::<Vec<_>>()).await;
        world.stop_reader().await;
        world.start_reader().await;
    }
    world.append(13..=13).await;
    eventually_readings(&world.copy, &(1..=13).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn what_happened_while_a_projection_was_away_is_applied_when_it_is_back() {
    let mut world = World::start().await;
    world.append(1..=3).await;
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    world.stop_reader().await;
    world.append(4..=6).await;
    eventually_stored(&world.bus, "sensors", &(1..=6).collect::<Vec<_>>()).await;
    world.start_reader().await;
    eventually_readings(&world.copy, &(1..=6).collect::<Vec<_>>()).await;
    world.stop().await;
}

/// Waits until the progress is `wanted`. The projection reports it a moment after its effect.
async fn eventually_at(progress: &Progress, wanted: &str) {
    let wanted = wanted.to_owned();
    eventually("the progress is reported", async || {
        is(progress.now().to_string(), &wanted)
    })
    .await;
}

/// Keeps readings; fails half-way while `fails` is set.
#[derive(Debug)]
struct Stumbling {
    fails: Arc<AtomicBool>,
    tries: Arc<AtomicUsize>,
}

impl Projection for Stumbling {
    const NAME: &'static str = "stumbling";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        for (index, event) in events.iter().enumerate() {
            let SensorRead { sensor, value, .. } = event.decode()?;
            keep_reading(tx, &sensor, value)?;
            if index == events.len() / 2 && self.fails.load(Ordering::SeqCst) {
                return Err(DbErr::Custom("not now".to_owned()).into());
            }
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_batch_that_fails_half_way_leaves_neither_effect_nor_checkpoint_and_is_tried_again() {
    let (folder, broker) = (folder(), broker());
    let (db, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
    let bus = bus(&broker, "world").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=50)).await;
    eventually_stored(&bus, "sensors", &(1..=50).collect::<Vec<_>>()).await;
    let (fails, tries) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let projection = Stumbling {
        fails: Arc::clone(&fails),
        tries: Arc::clone(&tries),
    };
    let mut reader = Tasks::none();
    let progress = reader.projection(projection, &copy, &bus).await;
    eventually("it was tried a few times", async || {
        match tries.load(Ordering::SeqCst) {
            3.. => Ok(()),
            tries => Err(tries),
        }
    })
    .await;
    let state = eventually_says(&reader.health, "stumbling from sensors", "Degraded").await;
    assert!(format!("{state:?}").contains("not now"), "{state:?}");
    assert_eq!(readings(&copy).await, [] as [i64; 0]);
    assert_eq!(progress.now().get("sensors"), 0);
    let sequence = "SELECT sequence AS n FROM headwater_checkpoint
                    UNION ALL SELECT position FROM headwater_position";
    let checkpoint = copy
        .read(move |snapshot| integers(snapshot, sequence))
        .await
        .unwrap();
    assert!(checkpoint.iter().all(|n| *n == 0), "{checkpoint:?}");

    fails.store(false, Ordering::SeqCst);
    eventually_readings(&copy, &(1..=50).collect::<Vec<_>>()).await;
    eventually_says(&reader.health, "stumbling from sensors", "Ok").await;
    reader.stop().await;
    relay.stop().await;
}

#[tokio::test]
async fn a_projection_that_cannot_apply_does_not_say_ok_in_between() {
    let (folder, broker) = (folder(), broker());
    let (db, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
    let bus = bus(&broker, "world").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=5)).await;
    eventually_stored(&bus, "sensors", &[1, 2, 3, 4, 5]).await;
    let (fails, tries) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut reader = Tasks::none();
    let projection = Stumbling {
        fails,
        tries: Arc::clone(&tries),
    };
    reader.projection(projection, &copy, &bus).await;
    eventually_says(&reader.health, "stumbling from sensors", "Degraded").await;
    let health = reader.health.clone();
    eventually("it was tried a few times", async || {
        let state = health.parts()["stumbling from sensors"].clone();
        assert!(format!("{state:?}").contains("Degraded"), "{state:?}");
        // Without a pause, so that not even a short moment is missed.
        for _ in 0..2000 {
            let state = health.parts()["stumbling from sensors"].clone();
            assert!(format!("{state:?}").contains("Degraded"), "{state:?}");
            tokio::task::yield_now().await;
        }
        if tries.load(Ordering::SeqCst) > 5 {
            Ok(())
        } else {
            Err("too few tries")
        }
    })
    .await;
    reader.stop().await;
    relay.stop().await;
}

#[tokio::test]
async fn an_event_published_by_hand_is_applied_once_also_after_a_restart() {
    let mut world = World::start().await;
    world.append(1..=2).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    publish_by_hand(&world.bus, None, &read("attic", 100)).await;
    publish_by_hand(&world.bus, Some("an id by hand"), &read("attic", 101)).await;
    publish_by_hand(&world.bus, Some("gauges.x.9"), &read("attic", 102)).await;
    eventually_readings(&world.copy, &[1, 2, 100, 101, 102]).await;
    world.stop_reader().await;
    world.start_reader().await;
    world.append(3..=3).await;
    eventually_readings(&world.copy, &[1, 2, 100, 101, 102, 3]).await;
    world.stop_reader().await;

    // Also if everything is delivered again.
    delete_consumer(&world).await;
    world.start_reader().await;
    world.append(4..=4).await;
    eventually_readings(&world.copy, &[1, 2, 100, 101, 102, 3, 4]).await;
    world.stop().await;
}

/// This happens if a store that was built from the former stream is swapped in just after the
/// reader has noticed the new stream.
#[tokio::test]
async fn a_checkpoint_of_another_stream_is_put_right_with_and_without_events() {
    let world = World::start().await;
    world.append(1..=2).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    let stream = stream_of_checkpoint(&world).await;
    take_for_another_streams(&world).await;
    world.append(3..=3).await;
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    assert_eq!(stream_of_checkpoint(&world).await, stream);

    take_for_another_streams(&world).await;
    eventually("it is noticed without an event", async || {
        is(stream_of_checkpoint(&world).await, &stream)
    })
    .await;
    assert_eq!(readings(&world.copy).await, [1, 2, 3]);
    world.stop().await;
}

async fn take_for_another_streams(world: &World) {
    let sql = "UPDATE headwater_checkpoint SET stream_created = ?";
    let taken = world.copy.write(|tx: &Tx| execute(tx, sql, [7.into()]));
    taken.await.unwrap();
}

async fn stream_of_checkpoint(world: &World) -> i64 {
    let sql = "SELECT stream_created AS n FROM headwater_checkpoint";
    let read = |snapshot: &_| integers(snapshot, sql);
    world.copy.read(read).await.unwrap()[0]
}

async fn delete_consumer(world: &World) {
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    stream.delete_consumer("readings").await.unwrap();
}

#[tokio::test]
async fn a_deleted_consumer_is_made_again() {
    let world = World::start().await;
    world.append(1..=2).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    delete_consumer(&world).await;
    world.append(3..=4).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4]).await;
    world.stop().await;
}

/// Such a consumer waits for ever for acknowledgements, and delivers not all events.
#[tokio::test]
async fn a_consumer_that_somebody_made_otherwise_is_made_anew() {
    use async_nats::jetstream::consumer::{AckPolicy, pull};
    let mut world = World::start().await;
    world.append(1..=1).await;
    eventually_readings(&world.copy, &[1]).await;
    world.stop_reader().await;
    delete_consumer(&world).await;
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    let other = pull::Config {
        durable_name: Some("readings".to_owned()),
        ack_policy: AckPolicy::Explicit,
        filter_subject: "sensors.v1.other.>".to_owned(),
        max_ack_pending: 10,
        ..pull::Config::default()
    };
    stream.create_consumer(other).await.unwrap();
    world.append(2..=200).await;
    world.start_reader().await;
    eventually_readings(&world.copy, &(1..=200).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_projection_may_start_before_the_stream_and_before_the_broker() {
    let (folder, mut broker) = (folder(), broker());
    broker.kill().unwrap();
    let (db, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
    let bus = bus(&broker, "world").await;
    let reader = projecting(&copy, &bus).await;
    eventually_says(&reader.health, "readings from sensors", "Degraded").await;
    broker.restart().unwrap();
    eventually_says(
        &reader.health,
        "readings from sensors",
        "no stream SENSORS yet",
    )
    .await;
    assert!(reader.health.is_ready(), "it serves its store");
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=2)).await;
    eventually_readings(&copy, &[1, 2]).await;
    reader.stop().await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_under_a_projection_costs_nothing() {
    let mut world = World::start().await;
    for round in 0..3 {
        world.append(round * 100 + 1..=round * 100 + 50).await;
        world.broker.kill().unwrap();
        world.append(round * 100 + 51..=round * 100 + 100).await;
        world.broker.restart().unwrap();
    }
    eventually_readings(&world.copy, &(1..=300).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn both_lives_of_a_source_are_applied_and_none_of_them_twice() {
    let mut world = World::start().await;
    world.relay.operator(&world.source, &world.bus);
    world.append(1..=3).await;
    eventually_readings(&world.copy, &[1, 2, 3]).await;
    eventually("the source has confirmed its epoch", async || {
        let sql = "SELECT count(*) AS n FROM headwater_epoch";
        let count = world.copy.read(move |snapshot: &_| integers(snapshot, sql));
        is(count.await.unwrap(), &vec![1])
    })
    .await;
    world.stop_relay().await;
    world.stop_reader().await;

    let other_folder = folder();
    let new_source = open(&other_folder, "sensors").await;
    append(&world.source, reads(4..=6)).await;
    let relay = relaying(&world.source, &world.bus);
    eventually_stored(&world.bus, "sensors", &[1, 2, 3, 4, 5, 6]).await;
    relay.stop().await;
    // The new source's relay finds its own epoch in the stream.
    begin_epoch(&world.bus, &new_source, [11, 12]).await;
    world.relay = relaying(&new_source, &world.bus);
    world.relay.operator(&new_source, &world.bus);
    let events = eventually_stored(&world.bus, "sensors", &[1, 2, 3, 4, 5, 6, 11, 12]).await;
    // One batch with the end of the first epoch and the start of the second.
    world.reader = Tasks::none();
    let progress = world
        .reader
        .projection(Readings, &world.copy, &world.bus)
        .await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5, 6, 11, 12]).await;
    // The position is of the present epoch.
    eventually_at(&progress, "sensors:2").await;

    // Repeated events of the first epoch are recognized, and do not change the present position.
    publish_again(&world.bus, &events[3..6]).await;
    append(&new_source, reads(13..=13)).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5, 6, 11, 12, 13]).await;
    publish_again(&world.bus, &events[3..6]).await;
    publish_by_hand(&world.bus, None, &read("attic", 100)).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5, 6, 11, 12, 13, 100]).await;
    eventually_at(&progress, "sensors:3").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_backlog_is_folded_in_large_batches() {
    let (folder, broker) = (folder(), broker());
    let (db, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
    let bus = bus(&broker, "world").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=20_000)).await;
    eventually_says(&relay.health, "relay", "published up to 20000\"").await;
    let tries = Arc::new(AtomicUsize::new(0));
    let fails = Arc::new(AtomicBool::new(false));
    let mut reader = Tasks::none();
    let projection = Stumbling {
        fails,
        tries: Arc::clone(&tries),
    };
    let progress = reader.projection(projection, &copy, &bus).await;
    let asked = "sensors:20000".parse().unwrap();
    progress
        .wait(&asked, Duration::from_secs(30))
        .await
        .unwrap();
    assert_eq!(readings(&copy).await, (1..=20_000).collect::<Vec<_>>());
    let batches = tries.load(Ordering::SeqCst);
    assert!(
        (10..2_000).contains(&batches),
        "{batches} batches for 20,000 events"
    );
    reader.stop().await;
    relay.stop().await;
}

#[tokio::test]
async fn another_version_of_a_projection_refuses_to_start() {
    #[derive(Debug)]
    struct Newer;
    impl Projection for Newer {
        const NAME: &'static str = Readings::NAME;
        const VERSION: u32 = Readings::VERSION + 1;
        const SOURCES: &'static [&'static str] = Readings::SOURCES;
        fn apply(&self, _: &Tx, _: &[Envelope]) -> Result<(), ApplyError> {
            Ok(())
        }
    }
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "house").await;
    let bus = bus(&broker, "world").await;
    let load = Runner::load(
        Readings,
        db.clone(),
        bus.clone(),
        Health::new(),
        Config::of::<Readings>(),
    );
    load.await.unwrap();
    let newer = Runner::load(Newer, db.clone(), bus, Health::new(), Config::of::<Newer>()).await;
    let why = newer.unwrap_err().to_string();
    assert!(
        why.contains("are of version 1, this program has 2"),
        "{why}"
    );
}

/// Keeps the readings of two sources in one table.
#[derive(Debug)]
struct Both;

impl Projection for Both {
    const NAME: &'static str = "both";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors", "gauges"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let value = match event.kind() {
                "sensors.v1.read" => event.decode::<SensorRead>()?.value,
                "gauges.v1.read" => event.decode::<GaugeRead>()?.value,
                _ => return Err(ApplyError::unknown(event)),
            };
            keep_reading(tx, &event.source, value)?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn each_source_has_its_own_progress_and_its_own_failures() {
    let (folder, broker) = (folder(), broker());
    let (sensors, gauges) = (
        open(&folder, "sensors").await,
        open(&folder, "gauges").await,
    );
    let copy = open(&folder, "house").await;
    let bus = bus(&broker, "world").await;
    let mut reader = Tasks::none();
    let progress = reader.projection(Both, &copy, &bus).await;
    let relay = relaying(&sensors, &bus);
    append(&sensors, reads(1..=2)).await;
    eventually_readings(&copy, &[1, 2]).await;
    eventually_at(&progress, "gauges:0,sensors:2").await;
    eventually_says(&reader.health, "both from gauges", "no stream GAUGES yet").await;
    let other = relaying(&gauges, &bus);
    append(
        &gauges,
        vec![GaugeRead {
            gauge: "oil".to_owned(),
            value: 9,
        }],
    )
    .await;
    eventually_readings(&copy, &[1, 2, 9]).await;
    eventually_at(&progress, "gauges:1,sensors:2").await;
    let saved = copy
        .read(headwater::projection::as_of::<Both>)
        .await
        .unwrap();
    assert_eq!(saved.applied, progress.now());
    reader.stop().await;
    relay.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn progress_waits_for_what_is_asked_and_no_longer() {
    let (folder, broker) = (folder(), broker());
    let (db, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
    let bus = bus(&broker, "world").await;
    let relay = relaying(&db, &bus);
    let mut reader = Tasks::none();
    let progress = reader.projection(Readings, &copy, &bus).await;
    let asked = "sensors:2".parse().unwrap();
    let soon = Duration::from_millis(50);
    let Err(Behind::NotYet { at, asked: wanted }) = progress.wait(&asked, soon).await else {
        panic!("nothing is applied yet");
    };
    assert_eq!((at.get("sensors"), &wanted), (0, &asked));

    let waiting = progress.wait(&asked, Duration::from_secs(20));
    let (reached, _) = tokio::join!(waiting, append(&db, reads(1..=2)));
    reached.unwrap();
    assert_eq!(
        readings(&copy).await,
        [1, 2],
        "a later read sees the effect"
    );

    let unknown = "sensors:1,boilers:1".parse().unwrap();
    let refused = progress.wait(&unknown, soon).await;
    assert_eq!(refused, Err(Behind::UnknownSource("boilers".to_owned())));
    reader.stop().await;

    // Known at once after a restart, before any request to the broker.
    let again = Runner::load(Readings, copy, bus, Health::new(), Config::of::<Readings>()).await;
    assert_eq!(again.unwrap().progress().now().get("sensors"), 2);
    relay.stop().await;
}
