//! Events change: old versions are upcast, newer ones are held.

use headwater::database::{Database, Tx, WriteError};
use headwater::operator::{Filter, RetryRequest};
use headwater::projection::dead_letter::retry::{Which, retry};
use headwater::projection::{Config, Runner};
use headwater::{ApplyError, Bus, Envelope, Event, Health, Projection, Upcast, outbox};
use prost::Message as _;
use prost::bytes::Bytes;
use sea_orm::DbErr;
use serde_json::json;

use crate::rebuild::Place;
use crate::support::{
    Readings, SensorRead, Tasks, World, append, dead_letters, eventually, eventually_readings,
    eventually_says, folder, is, jetstream, keep_reading, metrics, open, publish_by_hand, read,
    readings, reads, serve_system, stored,
};

const PART: &str = "readings from sensors";
const HELD: &str = "sensors.v2.read is newer than this service knows: upgrade house";

/// A sensor was read, in thousandths.
#[derive(Clone, PartialEq, prost::Message)]
struct SensorReadV2 {
    #[prost(int64, tag = "1")]
    milli: i64,
    #[prost(string, tag = "2")]
    sensor: String,
}

impl Event for SensorReadV2 {
    const SUBJECT: &'static str = "sensors.v2.read";

    fn key(&self) -> &str {
        &self.sensor
    }

    // As headwater-build generates it.
    fn decode_version(version: u32, payload: Bytes) -> Result<Self, prost::DecodeError> {
        match version {
            1 => SensorRead::decode_version(version, payload).map(Self::upcast),
            _ => Self::decode(payload),
        }
    }
}

impl Upcast<SensorRead> for SensorReadV2 {
    fn upcast(old: SensorRead) -> Self {
        milli(&old.sensor, old.value * 1000)
    }
}

/// Another event of the same source, which no projection here knows.
#[derive(Clone, PartialEq, prost::Message)]
struct SensorMovedV2 {
    #[prost(string, tag = "1")]
    sensor: String,
}

impl Event for SensorMovedV2 {
    const SUBJECT: &'static str = "sensors.v2.moved";

    fn key(&self) -> &str {
        &self.sensor
    }
}

fn milli(sensor: &str, milli: i64) -> SensorReadV2 {
    SensorReadV2 {
        milli,
        sensor: sensor.to_owned(),
    }
}

/// The program before the upgrade: it ignores events that it does not know.
#[derive(Debug)]
struct Old;

impl Projection for Old {
    const NAME: &'static str = Readings::NAME;
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];
    const EVENTS: &'static [&'static [&'static str]] = &[&[SensorRead::SUBJECT]];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            if event.kind() == SensorRead::SUBJECT {
                let SensorRead { sensor, value, .. } = event.decode()?;
                keep_reading(tx, &sensor, value)?;
            }
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        Some(event.decode::<SensorRead>().ok()?.sensor)
    }
}

/// The program after the upgrade: it names the newest version only. Thousandths below zero are
/// poison.
#[derive(Debug)]
struct New<const VERSION: u32>;

impl<const VERSION: u32> Projection for New<VERSION> {
    const NAME: &'static str = Readings::NAME;
    const VERSION: u32 = VERSION;
    const SOURCES: &'static [&'static str] = &["sensors"];
    const EVENTS: &'static [&'static [&'static str]] = &[&[SensorReadV2::SUBJECT]];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            if event.is::<SensorReadV2>() {
                let SensorReadV2 { sensor, milli } = event.decode()?;
                if milli < 0 {
                    return Err(ApplyError::Poison("below zero".to_owned()));
                }
                keep_reading(tx, &sensor, milli)?;
            }
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        Some(event.decode::<SensorReadV2>().ok()?.sensor)
    }
}

/// Runs `projection` over `db`.
async fn running<P: Projection>(projection: P, db: &Database, bus: &Bus) -> Tasks {
    let mut tasks = Tasks::none();
    tasks.projection(projection, db, bus).await;
    tasks
}

#[tokio::test]
async fn an_event_in_a_newer_version_is_held_and_named_and_applied_after_the_upgrade() {
    let mut world = World::start().await;
    world.stop_reader().await;
    append(&world.source, reads(1..=3)).await;
    // Unknown, but not a newer version of something known.
    let moved = SensorMovedV2 {
        sensor: "attic".to_owned(),
    };
    append(&world.source, vec![moved]).await;
    append(&world.source, vec![read("attic", 4)]).await;
    append(
        &world.source,
        vec![milli("attic", 5001), milli("attic", 6001)],
    )
    .await;
    // Of another key: the whole source waits.
    append(&world.source, vec![read("cellar", 7)]).await;

    for _ in 0..2 {
        let old = running(Old, &world.copy, &world.bus).await;
        eventually_says(&old.health, PART, HELD).await;
        assert_eq!(readings(&world.copy).await, [1, 2, 3, 4]);
        old.stop().await;
    }
    assert!(dead_letters(&world.copy).await.is_empty());
    let new = running(New::<1>, &world.copy, &world.bus).await;
    eventually_readings(&world.copy, &[1, 2, 3, 4, 5001, 6001, 7000]).await;
    eventually_says(&new.health, PART, "Ok(\"applied up to 8\")").await;
    new.stop().await;
    world.stop().await;
}

/// [`Old`] under its own name, so that no other test of this process changes its metric.
#[derive(Debug)]
struct Waiting;

impl Projection for Waiting {
    const NAME: &'static str = "waiting";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = Old::SOURCES;
    const EVENTS: &'static [&'static [&'static str]] = Old::EVENTS;

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        Old.apply(tx, events)
    }
}

#[tokio::test]
async fn a_metric_says_that_a_service_must_be_upgraded() {
    let mut world = World::start().await;
    world.stop_reader().await;
    let mut tasks = Tasks::none();
    let address = serve_system(&mut tasks).await;
    // Whatever is set before the first request for metrics is lost.
    metrics(&address).await;
    let eventually_needed = async |value: u64| {
        let labels = r#"{projection="waiting",source="sensors"}"#;
        eventually("the metric", async || {
            let metrics = metrics(&address).await;
            let needed = metrics.get(&format!("headwater_projection_upgrade_needed{labels}"));
            is(needed.copied(), &Some(value))
        })
        .await;
    };
    tasks.projection(Waiting, &world.copy, &world.bus).await;
    eventually_needed(0).await;
    append(&world.source, vec![milli("attic", 1001)]).await;
    eventually_needed(1).await;
    tasks.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn an_event_in_a_newer_version_is_held_too_if_it_comes_from_the_outbox() {
    let mut world = World::with_soft_stream().await;
    world.relay.operator(&world.source, &world.bus);
    world.stop_reader().await;
    append(&world.source, reads(1..=2)).await;
    append(&world.source, vec![milli("attic", 3001)]).await;
    append(&world.source, reads(4..=5)).await;
    eventually("the stream holds all", async || {
        is(stored(&world.bus, "sensors").await.len(), &5)
    })
    .await;
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();

    // A gap before event 4 …
    stream.delete_message(2).await.unwrap();
    stream.delete_message(3).await.unwrap();
    let old = running(Old, &world.copy, &world.bus).await;
    eventually_says(&old.health, PART, HELD).await;
    old.stop().await;
    assert_eq!(readings(&world.copy).await, [1, 2]);
    // … and a stream that has nothing after the checkpoint.
    stream.purge().await.unwrap();
    let old = running(Old, &world.copy, &world.bus).await;
    eventually_says(&old.health, PART, HELD).await;
    old.stop().await;
    assert_eq!(readings(&world.copy).await, [1, 2]);

    let new = running(New::<1>, &world.copy, &world.bus).await;
    eventually_readings(&world.copy, &[1, 2, 3001, 4000, 5000]).await;
    new.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn an_event_by_hand_in_a_newer_version_is_held() {
    let mut world = World::start().await;
    world.stop_reader().await;
    append(&world.source, reads(1..=1)).await;
    eventually("the stream holds it", async || {
        is(stored(&world.bus, "sensors").await.len(), &1)
    })
    .await;
    publish_by_hand(&world.bus, None, &milli("attic", 2001)).await;
    let old = running(Old, &world.copy, &world.bus).await;
    eventually_says(&old.health, PART, HELD).await;
    old.stop().await;
    let new = running(New::<1>, &world.copy, &world.bus).await;
    eventually_readings(&world.copy, &[1, 2001]).await;
    new.stop().await;
    world.stop().await;
}

/// The newer program made the letter, and an operator went back to the older one.
#[tokio::test]
async fn a_dead_letter_in_a_newer_version_stays_one_when_it_is_retried() {
    let mut world = World::start().await;
    world.relay.operator(&world.source, &world.bus);
    world.stop_reader().await;
    append(&world.source, vec![milli("attic", -1)]).await;
    let new = running(New::<1>, &world.copy, &world.bus).await;
    eventually("the letter is there", async || {
        is(dead_letters(&world.copy).await.len(), &1)
    })
    .await;
    new.stop().await;

    let (db, bus) = (world.copy.clone(), world.bus.clone());
    let runner = Runner::load(Old, db, bus, Health::new(), Config::of::<Old>()).await;
    let answer = eventually("the source answers", async || {
        let live = runner.as_ref().unwrap().live();
        retry(&live, Which::Request(RetryRequest::All(Filter::default()))).await
    })
    .await;
    assert_eq!((answer.applied, answer.failed.len()), (0, 1));
    assert_eq!(answer.failed[0].reason, HELD);
    world.stop().await;
}

#[tokio::test]
async fn an_event_in_two_versions_is_one_event_which_each_reader_applies_once() {
    let mut world = World::start().await;
    world.stop_reader().await;
    let both = |value| (read("attic", value), milli("attic", value * 1000 + 1));
    let appended = world.source.write(move |tx| {
        for (old, new) in [both(1), both(2)] {
            outbox::append_both(tx, &old, &new)?;
        }
        Ok::<_, DbErr>(())
    });
    let position = appended.await.unwrap().position.unwrap();
    assert_eq!(position.position, 2, "one position each");

    let old = running(Old, &world.copy, &world.bus).await;
    eventually_readings(&world.copy, &[1, 2]).await;
    eventually_says(&old.health, PART, "Ok(\"applied up to 2\")").await;
    old.stop().await;
    // The source's own database serves as the store of another reader.
    let new = running(New::<1>, &world.source, &world.bus).await;
    eventually_readings(&world.source, &[1001, 2001]).await;
    eventually_says(&new.health, PART, "Ok(\"applied up to 2\")").await;
    new.stop().await;
    world.stop().await;
}

#[tokio::test]
async fn two_versions_of_one_event_have_one_key() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let written = db.write(|tx| outbox::append_both(tx, &read("attic", 1), &milli("cellar", 1)));
    let Err(WriteError::Refused(why)) = written.await else {
        panic!("the keys differ");
    };
    let why = why.to_string();
    let differ = "the keys of sensors.v1.read and sensors.v2.read differ: `attic` and `cellar`";
    assert!(why.contains(differ), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_reads_old_events_through_the_chain() {
    let place = Place::start().await;
    append(&place.source, reads(1..=2)).await;
    let house = place.service(Old).await;
    house.eventually(&[1, 2]).await;
    house.stop().await;
    append(&place.source, vec![milli("attic", 3001)]).await;
    let house = place.service(New::<2>).await;
    place.eventually_rebuilt("done").await;
    house.eventually(&[1000, 2000, 3001]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_verified_up_to_an_event_that_is_held() {
    let place = Place::start().await;
    append(&place.source, reads(1..=2)).await;
    append(&place.source, vec![milli("attic", 3001)]).await;
    let house = place.service(Old).await;
    eventually_says(&house.health, PART, HELD).await;
    place.ask("verify", json!({})).await.unwrap();
    let status = place.eventually_rebuilt("done").await;
    assert_eq!(status["differences"]["count"], 0, "{status}");
    house.stop().await;
    place.relay.stop().await;
}
