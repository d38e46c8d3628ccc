//! Replays of one event on a copy of the past, and when events were applied.

use headwater::database::Tx;
use headwater::{ApplyError, Envelope, Projection};
use sea_orm::{ConnectionTrait as _, Statement, Value as Bound};
use serde_json::{Value, json};

use crate::rebuild::{House, Place};
use crate::support::{append, eventually, execute, jetstream, keep_reading, read, readings};

/// Keeps the newest reading of each sensor.
#[derive(Debug)]
struct Newest;

impl Projection for Newest {
    const NAME: &'static str = "newest";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];
    const TABLES: &'static [&'static str] = &["reading"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let crate::support::SensorRead { sensor, value, .. } = event.decode()?;
            if value == -1 {
                return Err(ApplyError::Poison("below zero".to_owned()));
            }
            let known = tx.query_one_raw(Statement::from_sql_and_values(
                tx.get_database_backend(),
                "SELECT 1 FROM reading WHERE sensor = ?",
                [Bound::from(&*sensor)],
            ))?;
            match known {
                Some(_) => execute(
                    tx,
                    "UPDATE reading SET value = ? WHERE sensor = ?",
                    [value.into(), sensor.into()],
                )?,
                None => keep_reading(tx, &sensor, value)?,
            }
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        Some(event.decode::<crate::support::SensorRead>().ok()?.sensor)
    }
}

/// A house with the events attic 1, cellar 2, attic 3, cellar -1 (poison), cellar 5, attic 6.
async fn house(place: &Place, is_copy: bool) -> House {
    let readings = [
        ("attic", 1),
        ("cellar", 2),
        ("attic", 3),
        ("cellar", -1),
        ("cellar", 5),
        ("attic", 6),
    ];
    let events = readings.map(|(sensor, value)| read(sensor, value));
    append(&place.source, events.into()).await;
    let house = if is_copy {
        place.service(Newest).await
    } else {
        place.owner(Newest).await
    };
    house.eventually(&[6, 2]).await;
    house
}

/// The rows that the event at a sequence changes, one word each: `-attic=1`, `+attic=3`.
async fn replayed(place: &Place, request: Value) -> Vec<String> {
    place.ask("replay", request.clone()).await.unwrap();
    let status = place.eventually_rebuilt("done").await;
    assert_eq!(status["then"], "replay");
    assert_eq!(
        status["differences"]["rows"],
        json!([]),
        "for operators only"
    );
    let status = place.ask("replay", request).await.unwrap();
    let rows = status["differences"]["rows"].as_array().unwrap();
    let word = |row: &Value| {
        let side = if row["only_in"] == "live" { '-' } else { '+' };
        let columns = row["row"].as_array().unwrap();
        let value = |name: &str| {
            let found = columns.iter().find(|column| column[0] == name);
            found.unwrap()[1].as_str().unwrap().to_owned()
        };
        if row["table"] == "dead letters" {
            return format!("{side}letter at {}: {}", value("place"), value("reason"));
        }
        format!("{side}{}={}", value("sensor"), value("value"))
    };
    rows.iter().map(word).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_shows_the_rows_before_and_after_an_event_and_changes_nothing() {
    for is_copy in [true, false] {
        let place = Place::start().await;
        let house = house(&place, is_copy).await;
        for (sequence, rows) in [
            (1, vec!["+attic=1"]),
            (3, vec!["-attic=1", "+attic=3"]),
            (4, vec!["+letter at 4: below zero"]),
            (5, vec!["+letter at 5: waits behind a parked event"]),
            (6, vec!["-attic=3", "+attic=6"]),
        ] {
            let id = format!("sensors.{}.{sequence}", place.source.epoch());
            let request = json!({"source": "sensors", "sequence": sequence, "id": id});
            assert_eq!(replayed(&place, request).await, rows);
        }
        assert_eq!(readings(&house.db).await, [6, 2]);
        assert_eq!(place.files(), ["house.db"]);
        house.stop().await;
        place.relay.stop().await;
    }
}

/// Events between what the copy has read and the event count as the event's.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_may_begin_earlier() {
    let place = Place::start().await;
    let house = house(&place, true).await;
    let request = json!({"source": "sensors", "sequence": 3, "before": {"sensors": 0}});
    let rows = replayed(&place, request).await;
    assert_eq!(rows, ["+attic=3", "+cellar=2"]);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_the_stream_lacks_are_not_shown_as_those_of_the_next() {
    let place = Place::with_soft_stream().await;
    let house = house(&place, true).await;
    let stream = jetstream(&place.bus).get_stream("SENSORS").await.unwrap();
    stream.delete_message(2).await.unwrap();
    let id = format!("sensors.{}.3", place.source.epoch());
    let request = json!({"source": "sensors", "sequence": 3, "id": id, "before": {"sensors": 1}});
    place.ask("replay", request).await.unwrap();
    let status = place.eventually_rebuilt("failed").await;
    let why = status["message"].as_str().unwrap();
    assert!(
        why.contains(&format!("1 events before {id} are missing")),
        "{why}"
    );
    house.stop().await;
    place.relay.stop().await;
}

/// What a paused projection has not applied yet can be tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_projection_is_replayed_up_to_what_it_has_not_applied() {
    let place = Place::start().await;
    let house = house(&place, true).await;
    let pause = json!({"reason": "a look at the next event"});
    place.ask("projections.pause", pause).await.unwrap();
    append(&place.source, vec![read("attic", 7)]).await;
    let request = json!({"source": "sensors", "sequence": 7});
    assert_eq!(replayed(&place, request).await, ["-attic=6", "+attic=7"]);
    assert_eq!(readings(&house.db).await, [6, 2]);
    place.ask("projections.resume", json!({})).await.unwrap();
    house.eventually(&[7, 2]).await;
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_of_what_is_not_there_says_so() {
    let place = Place::start().await;
    let house = house(&place, true).await;
    for (request, expected) in [
        (
            json!({"source": "gauges", "sequence": 1}),
            "newest does not read gauges; its sources are sensors",
        ),
        (
            json!({"source": "sensors", "sequence": 3, "before": {"sensors": 3}}),
            "cannot have read sensors up to sequence 3 before sequence 3",
        ),
    ] {
        place.ask("replay", request).await.unwrap();
        let status = place.eventually_rebuilt("failed").await;
        let why = status["message"].as_str().unwrap();
        assert!(why.contains(expected), "{why}");
    }
    let refused = place.refusal("replay", json!({"source": "sensors"})).await;
    assert!(refused.starts_with("400: send {"), "{refused}");
    // It waits for an event that does not come, and can be stopped.
    let request = json!({"source": "sensors", "sequence": 99});
    place.ask("replay", request).await.unwrap();
    let again = json!({"source": "sensors", "sequence": 1});
    let refused = place.refusal("replay", again).await;
    assert!(refused.starts_with("409"), "{refused}");
    place.ask("fold.stop", json!({})).await.unwrap();
    place.eventually_rebuilt("failed").await;
    assert_eq!(place.files(), ["house.db"]);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_says_when_an_event_was_applied() {
    let place = Place::start().await;
    let house = house(&place, true).await;
    append(&place.source, vec![read("attic", 7)]).await;
    house.eventually(&[7, 2]).await;
    let applied_at = async |position: u64| {
        let request = json!({"events": {"sensors": position}});
        let status = place.ask("status", request).await.unwrap();
        status["projections"][0]["sources"]["sensors"]["applied_at"].as_i64()
    };
    let at = eventually("the time is known", async || {
        applied_at(7).await.ok_or("it is not")
    })
    .await;
    let now = headwater::Clock::system().now_ms();
    assert!(at <= now && at > now - 60_000, "{at}");
    assert_eq!(applied_at(8).await, None);
    let status = place.ask("status", json!({})).await.unwrap();
    let of_source = &status["projections"][0]["sources"]["sensors"];
    assert_eq!(of_source.get("applied_at"), None);
    house.stop().await;
    place.relay.stop().await;
}
