//! Projections in a database that also holds the service's own data, and rebuilds that wait.

use headwater::database::{Database, Snapshot, Tx};
use headwater::{ApplyError, Envelope, Event, Process, Projection, Service};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::rebuild::{Doubled, HOUSE, House, Place};
use crate::support::{
    MIGRATIONS, Readings, append, eventually, eventually_readings, eventually_stored, execute,
    integers, jetstream, publish_by_hand, read, readings, reads,
};

/// An event of the service itself.
#[derive(Clone, PartialEq, prost::Message)]
struct Moved {
    #[prost(string, tag = "1")]
    into: String,
}

impl Event for Moved {
    const SUBJECT: &'static str = "house.v1.moved";

    fn key(&self) -> &str {
        &self.into
    }
}

/// A projection that names its tables.
#[derive(Debug)]
pub(crate) struct Sharing<P>(pub(crate) P);

macro_rules! sharing {
    ($($of:ty),*) => {$(
        impl Projection for Sharing<$of> {
            const NAME: &'static str = <$of>::NAME;
            const VERSION: u32 = <$of>::VERSION;
            const SOURCES: &'static [&'static str] = <$of>::SOURCES;
            const TABLES: &'static [&'static str] = &["reading"];

            fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
                self.0.apply(tx, events)
            }

            fn key(&self, event: &Envelope) -> Option<String> {
                self.0.key(event)
            }
        }
    )*};
}
sharing!(Readings, Doubled);

/// Runs `sql` in the service's database, without its projection.
async fn run(db: &Database, sql: &'static str) {
    db.write(move |tx| execute(tx, sql, [])).await.unwrap();
}

/// The service's own data.
async fn own(db: &Database) -> (Vec<i64>, String) {
    let read = |snapshot: &Snapshot| {
        integers(
            snapshot,
            "SELECT value AS n FROM label UNION ALL SELECT position FROM headwater_outbox",
        )
    };
    (db.read(read).await.unwrap(), db.epoch().to_string())
}

async fn with_something_of_its_own(house: &House) -> (Vec<i64>, String) {
    run(&house.db, "INSERT INTO label (value) VALUES (41), (42)").await;
    let moved = Moved {
        into: "it".to_owned(),
    };
    append(&house.db, vec![moved]).await;
    own(&house.db).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_in_a_services_own_database_is_rebuilt_and_nothing_else_is_touched() {
    let place = Place::start().await;
    append(&place.source, reads(1..=50)).await;
    let house = place.owner(Sharing(Readings)).await;
    let all: Vec<i64> = (1..=50).collect();
    house.eventually(&all).await;
    let kept = with_something_of_its_own(&house).await;
    run(&house.db, "DELETE FROM reading WHERE value = 7").await;
    run(&house.db, "UPDATE reading SET value = 900 WHERE value = 9").await;
    run(
        &house.db,
        "INSERT INTO reading (sensor, value) VALUES ('forged', 77)",
    )
    .await;

    for _ in 0..2 {
        place.ask("verify", json!({})).await.unwrap();
        let status = place.eventually_rebuilt("done").await;
        assert_eq!(
            status["differences"]["count"], 4,
            "a verification changes nothing: {status}"
        );
    }
    place
        .ask("rebuild", json!({"projection": "readings"}))
        .await
        .unwrap();
    let status = place.eventually_rebuilt("done").await;
    assert_eq!(status["differences"]["count"], 4, "{status}");
    assert_eq!(readings(&house.db).await, all);
    assert_eq!(own(&house.db).await, kept);
    append(&place.source, reads(51..=51)).await;
    house.eventually(&(1..=51).collect::<Vec<_>>()).await;
    place.ask("verify", json!({})).await.unwrap();
    let status = place.eventually_rebuilt("done").await;
    assert_eq!(status["differences"]["count"], 0, "{status}");
    assert_eq!(place.files(), ["house.db"]);
    let stream = jetstream(&place.bus).get_stream("SENSORS").await.unwrap();
    assert_eq!(stream.cached_info().state.consumer_count, 1);
    house.stop().await;
    place.relay.stop().await;
}

/// More rows than one transaction changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_raised_version_is_rebuilt_beside_the_services_own_writes() {
    let place = Place::start().await;
    append(&place.source, reads(1..=2_500)).await;
    let house = place.owner(Sharing(Readings)).await;
    house.eventually(&(1..=2_500).collect::<Vec<_>>()).await;
    let kept = with_something_of_its_own(&house).await;
    house.stop().await;

    let house = place.owner(Sharing(Doubled)).await;
    let doubled: Vec<i64> = (1..=2_500).map(|value| value * 2).collect();
    house.eventually(&doubled).await;
    let status = place.eventually_rebuilt("done").await;
    let reason = status["reason"].as_str().unwrap();
    assert!(reason.contains("version 1"), "{status}");
    assert_eq!(own(&house.db).await, kept);
    house.stop().await;

    let house = place.owner(Sharing(Doubled)).await;
    append(&place.source, reads(2_501..=2_501)).await;
    house.eventually(&[doubled, vec![5_002]].concat()).await;
    place.eventually_rebuilt("idle").await;
    house.stop().await;
    place.relay.stop().await;
}

/// A consumer that delivers headers only causes an empty letter and a missing row. After the
/// rebuild, the letter is gone and the row is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_in_a_services_own_database_takes_dead_letters_along() {
    let place = Place::start().await;
    append(
        &place.source,
        vec![read("a", 1), read("b", -1), read("c", 3)],
    )
    .await;
    let house = place.owner(Sharing(Readings)).await;
    house.eventually(&[1, 3]).await;
    let lost = |tx: &Tx| {
        execute(tx, "DELETE FROM reading WHERE value = 3", [])?;
        execute(
            tx,
            "INSERT INTO headwater_dead_letter
                 (projection, source, lane, epoch, position, sequence, subject, payload, reason, recorded_at)
             SELECT projection, source, 'partition 3', epoch, 3, 3, subject, x'', 'no sensor', 0
             FROM headwater_dead_letter",
            [],
        )
    };
    house.db.write(lost).await.unwrap();
    place.ask("rebuild", json!({})).await.unwrap();
    place.eventually_rebuilt("done").await;
    let values = async || {
        let mut values = readings(&house.db).await;
        values.sort_unstable();
        values
    };
    assert_eq!(values().await, [1, 3]);
    let letters = place.ask("dead-letters.list", json!({})).await.unwrap();
    assert_eq!(letters["total"], 1, "{letters}");
    assert_eq!(letters["letters"][0]["position"], 2, "{letters}");
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_does_not_name_its_tables_does_not_start_in_a_shared_database() {
    let place = Place::start().await;
    let stop = CancellationToken::new();
    let process = Process::on_free_ports(stop).await.unwrap();
    let started = Service::start(HOUSE, MIGRATIONS, place.config(), process).await;
    let projected = started.unwrap().project(Readings).await;
    let why = projected.unwrap_err().to_string();
    assert!(why.contains("does not name its TABLES"), "{why}");
    place.relay.stop().await;
}

/// The stream and the outbox have different events at position 2. The live store applied the
/// stream's.
#[tokio::test(flavor = "multi_thread")]
async fn a_verification_folds_what_the_outboxes_have_and_not_what_the_streams_have() {
    let mut place = Place::start().await;
    append(&place.source, reads(1..=1)).await;
    eventually_stored(&place.bus, "sensors", &[1]).await;
    place.stop_source().await;
    let forged = format!("sensors.{}.2", place.source.epoch());
    publish_by_hand(&place.bus, Some(&forged), &read("forged", 66)).await;
    publish_by_hand(&place.bus, None, &read("by hand", 5)).await;
    append(&place.source, reads(2..=2)).await;
    place.relay.operator(&place.source, &place.bus);
    let house = place.service(Readings).await;
    house.eventually(&[1, 66, 5]).await;

    let verify = async || {
        place.ask("verify", json!({})).await.unwrap();
        let status = place.eventually_rebuilt("done").await;
        let rows = status["differences"]["rows"].as_array().unwrap().clone();
        let row = |row: &Value| format!("{} {}", row["only_in"], row["row"][2][1]);
        let mut rows: Vec<_> = rows.iter().map(row).collect();
        rows.sort();
        rows
    };
    assert_eq!(verify().await, ["\"fold\" \"2\"", "\"live\" \"66\""]);
    house.stop().await;
    place.stop_source().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_without_the_source_ends_and_says_what_it_waits_for() {
    let mut place = Place::start().await;
    append(&place.source, reads(1..=3)).await;
    let house = place.service(Readings).await;
    house.eventually(&[1, 2, 3]).await;
    place.stop_source().await;
    place.ask("verify", json!({})).await.unwrap();
    let status = place.eventually_rebuilt("failed").await;
    let why = status["message"].as_str().unwrap();
    assert!(
        why.contains("gave up") && why.contains("in sensors: ask sensors for its events from 1"),
        "{status}"
    );
    assert_eq!(readings(&house.db).await, [1, 2, 3]);
    assert_eq!(place.files(), ["house.db"]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_waits_says_for_what_and_can_be_stopped() {
    let mut place = Place::with_soft_stream().await;
    append(&place.source, reads(1..=5)).await;
    let house = place.service(Readings).await;
    house.eventually(&[1, 2, 3, 4, 5]).await;
    place.stop_source().await;
    let stream = jetstream(&place.bus).get_stream("SENSORS").await.unwrap();
    stream.delete_message(2).await.unwrap();
    place.ask("rebuild", json!({})).await.unwrap();
    eventually("the status names the gap", async || {
        let status = place.ask("fold", json!({})).await?;
        let why = status["waiting"]["sensors"].as_str().unwrap_or_default();
        if why.contains("misses the events 2 to 2 of sensors") {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    place.ask("fold.stop", json!({})).await.unwrap();
    let status = place.eventually_rebuilt("failed").await;
    let why = status["message"].as_str().unwrap();
    assert!(why.contains("an operator stopped it"), "{status}");
    assert_eq!(place.files(), ["house.db"], "the live store still serves");

    place.relay.operator(&place.source, &place.bus);
    eventually("another rebuild starts", async || {
        place.ask("rebuild", json!({})).await
    })
    .await;
    place.eventually_rebuilt("done").await;
    eventually_readings(&house.db, &[1, 2, 3, 4, 5]).await;
    house.stop().await;
}

/// The live store waits before a gap that no source can fill. Both stores are compared up to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_store_that_waits_for_a_gap_is_compared_as_far_as_it_is() {
    let place = Place::start().await;
    append(&place.source, reads(1..=3)).await;
    let house = place.service(Readings).await;
    house.eventually(&[1, 2, 3]).await;
    let forged = format!("sensors.{}.1000", place.source.epoch());
    publish_by_hand(&place.bus, Some(&forged), &read("forged", 66)).await;
    place.ask("verify", json!({})).await.unwrap();
    let status = place.eventually_rebuilt("done").await;
    assert_eq!(status["differences"]["count"], 0, "{status}");
    house.stop().await;
    place.relay.stop().await;
}

/// The name of a projection that a service does not have is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_fold_is_asked_of_a_projection_that_is_there() {
    let place = Place::start().await;
    let house = place.owner(Sharing(Readings)).await;
    eventually("the service answers", async || {
        place.ask("fold", json!({})).await
    })
    .await;
    for endpoint in ["rebuild", "verify", "fold", "fold.stop"] {
        let refused = place
            .refusal(endpoint, json!({"projection": "writings"}))
            .await;
        assert!(
            refused.starts_with("404") && refused.contains("readings"),
            "{refused}"
        );
    }
    house.stop().await;
    place.relay.stop().await;
}
