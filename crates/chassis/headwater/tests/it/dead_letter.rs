//! Operators list, retry and discard dead letters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use broker::Broker;
use headwater::database::{Database, Tx};
use headwater::operator::{
    DISCARD_MAX, DiscardAnswer, DiscardManyAnswer, InOutbox, Letter, ListAnswer,
    ProjectionRegistry, RetryAnswer,
};
use headwater::projection::{Config, Runner};
use headwater::{ApplyError, Bus, Envelope, EventId, Projection};
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Readings, SensorRead, Tasks, append, broker, broker_with, bus, eventually, eventually_readings,
    execute, folder, is, keep_reading, large, open, publish_by_hand, read, readings, relaying,
};

/// Refuses values below zero until it is fixed; panics at -2.
#[derive(Debug, Clone, Default)]
struct Mendable(Arc<AtomicBool>);

impl Projection for Mendable {
    const NAME: &'static str = Readings::NAME;
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            if event.kind() != "sensors.v1.read" {
                return Err(ApplyError::unknown(event));
            }
            let SensorRead { sensor, value, .. } = event.decode()?;
            let is_fixed = self.0.load(Ordering::Relaxed);
            assert!(is_fixed || value != -2, "a bug in a projection");
            if value < 0 && !is_fixed {
                return Err(ApplyError::Poison("below zero".to_owned()));
            }
            keep_reading(tx, &sensor, value)?;
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        Readings.key(event)
    }
}

/// A source, its stream, and a projection with admin endpoints.
struct House {
    projection: Mendable,
    copy: Database,
    source: Database,
    bus: Bus,
    tasks: Tasks,
    relay: Tasks,
    _broker: Broker,
    _folder: TempDir,
}

impl House {
    async fn start(events: Vec<SensorRead>) -> Self {
        Self::start_at(broker(), events).await
    }

    async fn start_at(broker: Broker, events: Vec<SensorRead>) -> Self {
        let folder = folder();
        let (source, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
        let bus = bus(&broker, "house").await;
        append(&source, events).await;
        let mut relay = relaying(&source, &bus);
        relay.operator(&source, &bus);
        let projection = Mendable::default();
        let mut tasks = Tasks::none();
        let config = Config::of::<Mendable>();
        let (db, health) = (copy.clone(), tasks.health.clone());
        let runner = Runner::load(projection.clone(), db, bus.clone(), health, config).await;
        let runner = runner.unwrap();
        tasks.serve_operators(&copy, &bus, ProjectionRegistry::default().with(&runner));
        tasks.run(Mendable::NAME, |stop| runner.run(stop));
        let house = Self {
            projection,
            copy,
            source,
            bus,
            tasks,
            relay,
            _broker: broker,
            _folder: folder,
        };
        eventually("operators are answered", async || {
            house.ask::<ListAnswer>("list", json!({})).await
        })
        .await;
        house
    }

    fn fix(&self) {
        self.projection.0.store(true, Ordering::Relaxed);
    }

    async fn ask<A: DeserializeOwned>(&self, endpoint: &str, request: Value) -> Result<A, String> {
        let subject = format!("headwater.house.dead-letters.{endpoint}");
        let request = self
            .bus
            .client()
            .request(subject, request.to_string().into());
        let answer = request.await.map_err(|error| error.to_string())?;
        if let Some(headers) = &answer.headers
            && let Some(error) = headers.get("Nats-Service-Error")
        {
            let code = headers.get("Nats-Service-Error-Code").unwrap();
            return Err(format!("{code} {error}"));
        }
        serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())
    }

    async fn letters(&self) -> Vec<Letter> {
        self.ask::<ListAnswer>("list", json!({}))
            .await
            .unwrap()
            .letters
    }

    /// Waits until there are `count` letters.
    async fn eventually_letters(&self, count: usize) -> Vec<Letter> {
        eventually("the letters are there", async || {
            let letters = self.letters().await;
            if letters.len() == count {
                Ok(letters)
            } else {
                Err(letters)
            }
        })
        .await
    }

    /// Waits until there are `count` letters, more than fit into one answer; returns the first id.
    async fn first_of_letters(&self, count: u64) -> u64 {
        eventually("the letters are there", async || {
            let page: ListAnswer = self.ask("list", json!({"limit": 1})).await?;
            match page.letters.first() {
                Some(first) if page.total == count => Ok(first.id),
                _ => Err(format!("{}", page.total)),
            }
        })
        .await
    }

    async fn stop(self) {
        self.tasks.stop().await;
        self.relay.stop().await;
    }
}

#[tokio::test]
async fn letters_are_listed_with_what_is_at_fault_and_what_only_waits() {
    let events = vec![read("a", -1), read("b", 1), read("a", 2), read("c", -2)];
    let house = House::start(events).await;
    let letters = house.eventually_letters(3).await;
    let seen: Vec<_> = letters
        .iter()
        .map(|letter| {
            (
                letter.lane.as_str(),
                letter.waiting,
                letter.position,
                letter.reason.as_str(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("key a", false, Some(1), "below zero"),
            ("key a", true, Some(3), "waits behind a parked event"),
            ("key c", false, Some(4), "applying it panicked"),
        ]
    );
    let shown: Letter = house
        .ask("show", json!({"id": letters[0].id}))
        .await
        .unwrap();
    assert!(shown.payload.is_some(), "with its payload");
    let page: ListAnswer = house
        .ask("list", json!({"after": letters[0].id, "limit": 1}))
        .await
        .unwrap();
    assert_eq!((page.letters.len(), page.total), (1, 3));
    assert_eq!(page.letters[0].id, letters[1].id);
    house.stop().await;
}

#[tokio::test]
async fn a_retry_after_the_mend_applies_the_lane_in_its_order() {
    let events = vec![
        read("a", -1),
        read("b", 1),
        read("a", 2),
        read("a", -3),
        read("b", 4),
    ];
    let house = House::start(events).await;
    let letters = house.eventually_letters(3).await;
    let again: RetryAnswer = house
        .ask("retry", json!({"id": letters[0].id}))
        .await
        .unwrap();
    assert_eq!(
        (again.applied, again.left, again.failed.len()),
        (0, 3, 1),
        "not fixed yet"
    );
    assert_eq!(
        readings(&house.copy).await,
        [1, 4],
        "nothing is applied by halves"
    );
    house.fix();
    let again: RetryAnswer = house
        .ask("retry", json!({"id": letters[0].id}))
        .await
        .unwrap();
    assert_eq!((again.applied, again.left), (3, 0));
    assert_eq!(readings(&house.copy).await, [1, 4, -1, 2, -3]);
    append(&house.source, vec![read("a", 5)]).await;
    eventually_readings(&house.copy, &[1, 4, -1, 2, -3, 5]).await;
    house.stop().await;
}

#[tokio::test]
async fn one_lane_or_all_lanes_are_tried() {
    let events = vec![read("a", -1), read("b", -4), read("a", 2), read("c", -5)];
    let house = House::start(events).await;
    house.eventually_letters(4).await;
    house.fix();
    let retried: RetryAnswer = house.ask("retry", json!({"lane": "key b"})).await.unwrap();
    assert_eq!((retried.applied, retried.left), (1, 3));
    let all: RetryAnswer = house.ask("retry", json!({"all": {}})).await.unwrap();
    assert_eq!((all.applied, all.left), (3, 0));
    assert_eq!(readings(&house.copy).await, [-4, -1, 2, -5]);
    house.stop().await;
}

#[tokio::test]
async fn a_retry_stops_at_the_next_that_fails_and_what_follows_waits_on() {
    let events = vec![read("a", -1), read("a", 2), read("a", -2), read("a", 3)];
    let house = House::start(events).await;
    let letters = house.eventually_letters(4).await;
    let discarded: DiscardAnswer = house
        .ask("discard", json!({"id": letters[0].id, "reason": "a test"}))
        .await
        .unwrap();
    assert_eq!((discarded.retried.applied, discarded.retried.left), (1, 2));
    let left = house.letters().await;
    let seen: Vec<_> = left
        .iter()
        .map(|letter| (letter.position, letter.waiting))
        .collect();
    assert_eq!(seen, [(Some(3), false), (Some(4), true)]);
    assert_eq!(readings(&house.copy).await, [2]);
    house.stop().await;
}

#[tokio::test]
async fn a_discarded_letter_is_kept_with_the_reason_and_what_waited_goes_on() {
    let events = vec![read("a", -1), read("a", 2)];
    let house = House::start(events).await;
    let letters = house.eventually_letters(2).await;
    let id = letters[0].id;
    let done: DiscardAnswer = house
        .ask("discard", json!({"id": id, "reason": "sent twice"}))
        .await
        .unwrap();
    assert_eq!(done.discarded.id, id);
    assert_eq!(readings(&house.copy).await, [2]);
    assert!(house.letters().await.is_empty());
    let kept: ListAnswer = house.ask("discarded", json!({})).await.unwrap();
    assert_eq!(
        kept.letters[0].discarded_because.as_deref(),
        Some("sent twice")
    );
    assert_eq!(kept.letters[0].position, Some(1));
    house.stop().await;
}

#[tokio::test]
async fn several_are_discarded_at_once_and_what_waited_behind_them_goes_on() {
    let events = vec![
        read("a", -1),
        read("a", 2),
        read("b", -4),
        read("c", -5),
        read("b", -6),
    ];
    let house = House::start(events).await;
    let letters = house.eventually_letters(5).await;
    let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
    // The second letter waits behind the first, the fifth behind the third; there is no letter 99.
    let request = json!({"ids": [ids[1], ids[0], ids[2], 99], "reason": "junk"});
    let done: DiscardManyAnswer = house.ask("discard", request).await.unwrap();
    let expected = DiscardManyAnswer {
        discarded: 2,
        skipped: 2,
        applied: 1,
        failed: 1,
        left: 2,
    };
    assert_eq!(done, expected);
    assert_eq!(readings(&house.copy).await, [2]);
    let left = house.letters().await;
    let left: Vec<_> = left
        .iter()
        .map(|letter| (letter.id, letter.waiting))
        .collect();
    let failed_in_its_turn = (ids[4], false);
    assert_eq!(left, [(ids[3], false), failed_in_its_turn], "not confirmed");
    let kept: ListAnswer = house.ask("discarded", json!({})).await.unwrap();
    assert_eq!(kept.total, 2);
    let too_many = vec![1; DISCARD_MAX + 1];
    for wrong in [
        json!({"ids": too_many, "reason": "junk"}),
        json!({"ids": [1], "id": 1, "reason": "junk"}),
        json!({"reason": "junk"}),
        json!({"ids": [ids[3]], "reason": " "}),
    ] {
        let refused = house.ask::<Value>("discard", wrong).await.unwrap_err();
        assert!(refused.starts_with("400"), "{refused}");
    }
    house.stop().await;
}

#[tokio::test]
async fn letters_are_listed_and_retried_by_source_lane_and_error() {
    let events = vec![read("a", -1), read("a", 2), read("b", -2), read("c", -5)];
    let house = House::start(events).await;
    house.eventually_letters(4).await;
    let listed = async |filter: Value| {
        let page: ListAnswer = house.ask("list", json!({"filter": filter})).await.unwrap();
        assert_eq!(page.total, page.letters.len() as u64);
        let letters = page.letters.into_iter();
        letters
            .map(|letter| letter.position.unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(json!({})).await, [1, 2, 3, 4]);
    assert_eq!(listed(json!({"source": "sensors"})).await, [1, 2, 3, 4]);
    assert_eq!(listed(json!({"source": "others"})).await, [0; 0]);
    assert_eq!(listed(json!({"lane": "key a"})).await, [1, 2]);
    assert_eq!(listed(json!({"error": "panicked"})).await, [3]);
    assert_eq!(
        listed(json!({"error": "below", "waiting": false})).await,
        [1, 4]
    );
    house.fix();
    let retried = async |filter: Value| {
        let done = house.ask::<RetryAnswer>("retry", json!({"all": filter}));
        let done = done.await.unwrap();
        (done.applied, done.left)
    };
    assert_eq!(retried(json!({"source": "others"})).await, (0, 4));
    assert_eq!(retried(json!({"error": "panicked"})).await, (1, 3));
    assert_eq!(
        retried(json!({"lane": "key a", "error": "below"})).await,
        (2, 1)
    );
    assert_eq!(readings(&house.copy).await, [-2, -1, 2]);
    house.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_followed_say_why_and_change_nothing() {
    let events = vec![read("a", -1), read("a", 2)];
    let house = House::start(events).await;
    let letters = house.eventually_letters(2).await;
    let refused = async |endpoint: &str, request: Value| {
        house.ask::<Value>(endpoint, request).await.unwrap_err()
    };
    let waits = refused("retry", json!({"id": letters[1].id})).await;
    assert!(
        waits.starts_with("409") && waits.contains("waits behind"),
        "{waits}"
    );
    assert!(refused("retry", json!({"id": 99})).await.starts_with("404"));
    assert!(
        refused("retry", json!({"lane": "key nobody"}))
            .await
            .starts_with("404")
    );
    assert!(refused("retry", json!({})).await.starts_with("400"));
    assert!(refused("show", json!({"id": 99})).await.starts_with("404"));
    assert!(
        refused("show", json!({"number": 1}))
            .await
            .starts_with("400")
    );
    let silent = json!({"id": letters[0].id, "reason": " "});
    assert!(refused("discard", silent).await.starts_with("400"));
    assert!(
        refused("discard", json!({"id": 99, "reason": "x"}))
            .await
            .starts_with("404")
    );
    assert_eq!(house.letters().await, letters);
    house.stop().await;
}

/// Empties the payload of the letter at `position`, like a consumer that delivers headers only.
async fn cut(house: &House, position: u64) {
    let cut = move |tx: &Tx| {
        let sql = "UPDATE headwater_dead_letter SET payload = x'' WHERE position = ?";
        execute(tx, sql, [position.into()])
    };
    house.copy.write(cut).await.unwrap();
}

#[tokio::test]
async fn a_letter_is_applied_as_the_outbox_has_it_and_not_as_it_was_delivered() {
    let events = vec![read("a", -1), read("a", 2), read("a", 3), read("b", -4)];
    let house = House::start(events).await;
    let letters = house.eventually_letters(4).await;
    for position in [1, 3, 4] {
        cut(&house, position).await;
    }
    let shown = async |letter: &Letter| {
        let shown: Letter = house.ask("show", json!({"id": letter.id})).await.unwrap();
        shown.outbox
    };
    match shown(&letters[0]).await {
        Some(InOutbox::Other { bytes, payload, .. }) => {
            assert!(bytes > 0 && payload.is_some(), "{payload:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(shown(&letters[1]).await, Some(InOutbox::Same));
    let again: RetryAnswer = house.ask("retry", json!({"all": {}})).await.unwrap();
    let reasons: Vec<_> = again.failed.iter().map(|letter| &*letter.reason).collect();
    assert_eq!(reasons, ["below zero", "below zero"], "not fixed yet");
    assert_eq!(shown(&letters[0]).await, Some(InOutbox::Same), "updated");

    let id = letters[0].id;
    let request = json!({"id": id, "reason": "a test"});
    let done: DiscardAnswer = house.ask("discard", request).await.unwrap();
    assert_eq!((done.retried.applied, done.retried.left), (2, 1));
    assert_eq!(readings(&house.copy).await, [2, 3]);
    house.fix();
    let again: RetryAnswer = house.ask("retry", json!({"all": {}})).await.unwrap();
    assert_eq!((again.applied, again.left), (1, 0));
    assert_eq!(readings(&house.copy).await, [2, 3, -4]);
    house.stop().await;
}

#[tokio::test]
async fn a_source_that_is_away_lets_its_letters_wait_unchanged() {
    let mut house = House::start(vec![read("a", -1), read("a", 2)]).await;
    let letters = house.eventually_letters(2).await;
    std::mem::replace(&mut house.relay, Tasks::none())
        .stop()
        .await;
    house.fix();
    let (id, reason) = (letters[0].id, "a test");
    for (endpoint, request) in [
        ("retry", json!({"id": id})),
        ("retry", json!({"all": {}})),
        ("discard", json!({"id": id, "reason": reason})),
    ] {
        let refused = house.ask::<Value>(endpoint, request).await.unwrap_err();
        assert!(
            refused.starts_with("503 sensors does not answer") && refused.contains("start it"),
            "{refused}"
        );
    }
    assert_eq!(house.letters().await, letters);
    let shown: Letter = house.ask("show", json!({"id": id})).await.unwrap();
    assert!(
        matches!(shown.outbox, Some(InOutbox::Unknown(_))),
        "{shown:?}"
    );
    // No letter waits behind it.
    let last = json!({"id": letters[1].id, "reason": reason});
    let done: DiscardAnswer = house.ask("discard", last).await.unwrap();
    assert_eq!(done.retried.left, 1);
    house.relay.operator(&house.source, &house.bus);
    let again = async || house.ask::<RetryAnswer>("retry", json!({"id": id})).await;
    let again = eventually("the source is back", again).await;
    assert_eq!((again.applied, again.left), (1, 0));
    assert_eq!(readings(&house.copy).await, [-1]);
    house.stop().await;
}

#[tokio::test]
async fn a_letter_that_no_outbox_has_is_not_applied_and_one_by_hand_is() {
    let house = House::start(vec![read("a", 1)]).await;
    eventually_readings(&house.copy, &[1]).await;
    let forged = format!("sensors.{}.2", house.source.epoch());
    for (id, event) in [(Some(forged), read("a", -5)), (None, read("b", -6))] {
        let park = move |tx: &Tx| {
            let sql = "INSERT INTO headwater_dead_letter
                     (projection, source, lane, epoch, position, sequence, subject, payload, reason, recorded_at)
                 VALUES ('readings', 'sensors', ?, ?, ?, 9, ?, ?, 'below zero', 0)";
            let id: Option<EventId> = id.map(|id: String| id.parse().unwrap());
            let values = [
                format!("key {}", event.sensor).into(),
                id.as_ref().map(|id| id.epoch.to_string()).into(),
                id.map(|id| id.position).into(),
                headwater::subject_of(&event).into(),
                prost::Message::encode_to_vec(&event).into(),
            ];
            execute(tx, sql, values)
        };
        house.copy.write(park).await.unwrap();
    }
    let letters = house.eventually_letters(2).await;
    house.fix();
    let again: RetryAnswer = house.ask("retry", json!({"all": {}})).await.unwrap();
    assert_eq!((again.applied, again.left), (1, 1));
    let why = &again.failed[0].reason;
    assert!(why.contains("has no position 2"), "{why}");
    assert_eq!(readings(&house.copy).await, [1, -6]);
    let shown = house.ask::<Letter>("show", json!({"id": letters[0].id}));
    assert_eq!(shown.await.unwrap().outbox, Some(InOutbox::Missing));
    house.stop().await;
}

/// More letters than are compared with the outbox at once.
#[tokio::test]
async fn thousands_of_letters_of_one_lane_are_tried_in_their_order() {
    let events = std::iter::once(-1).chain(2..=2_300);
    let house = House::start(events.map(|value| read("a", value)).collect()).await;
    let first = house.first_of_letters(2_300).await;
    house.fix();
    let again: RetryAnswer = house.ask("retry", json!({"id": first})).await.unwrap();
    assert_eq!((again.applied, again.left), (2_300, 0));
    let wanted: Vec<i64> = std::iter::once(-1).chain(2..=2_300).collect();
    assert_eq!(readings(&house.copy).await, wanted);
    house.stop().await;
}

/// Undecodable, unknown, too large: published by hand, so that no outbox rejects them.
#[tokio::test]
async fn events_that_no_outbox_would_take_are_parked_too() {
    let house = House::start(vec![read("a", 1)]).await;
    eventually_readings(&house.copy, &[1]).await;
    let jetstream = async_nats::jetstream::new(house.bus.client().clone());
    let publish = async |subject: &'static str, payload: &'static [u8]| {
        let ack = jetstream.publish(subject, payload.into()).await.unwrap();
        ack.await.unwrap();
    };
    publish("sensors.v1.read.7", b"\xff\xff").await;
    publish("sensors.v1.melted.8", b"").await;
    publish_by_hand(&house.bus, None, &large(3, headwater::MAX_PAYLOAD)).await;
    let letters = house.eventually_letters(3).await;
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| letter.reason.as_str())
        .collect();
    assert!(reasons[0].contains("does not decode"), "{reasons:?}");
    assert!(
        reasons[1].contains("unknown event sensors.v1.melted"),
        "{reasons:?}"
    );
    assert!(reasons[2].contains("above the limit"), "{reasons:?}");
    append(&house.source, vec![read("b", 2)]).await;
    eventually("other events are applied", async || {
        is(readings(&house.copy).await, &vec![1, 2])
    })
    .await;
    house.stop().await;
}

#[tokio::test]
async fn letters_are_given_in_what_the_server_has_room_for() {
    const LARGE: usize = 60_000;
    let sensor = |number| format!("{number:0400}");
    let mut events: Vec<_> = (0..150).map(|number| read(&sensor(number), -1)).collect();
    events.push(SensorRead {
        value: -1,
        ..large(0, LARGE)
    });
    let house = House::start_at(broker_with("max_payload: 65536"), events).await;
    eventually("all are dead letters", async || {
        let page = house.ask::<ListAnswer>("list", json!({"limit": 1})).await?;
        is(page.total, &151).map_err(|seen| seen.to_string())
    })
    .await;
    let mut letters: Vec<Letter> = Vec::new();
    let mut pages = 0;
    while letters.len() < 151 {
        let after = letters.last().map_or(0, |letter| letter.id);
        let page = json!({"after": after, "limit": 1000});
        let page = house.ask::<ListAnswer>("list", page).await.unwrap();
        assert!(!page.letters.is_empty(), "there are letters after {after}");
        letters.extend(page.letters);
        pages += 1;
    }
    assert!(pages > 1, "{pages}");
    let last = letters.last().unwrap();
    let refused = house.ask::<Letter>("show", json!({"id": last.id})).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.starts_with(&format!("413 the dead letter {} (in parts", last.id)),
        "{refused}"
    );
    let mut payload = Vec::new();
    while (payload.len() as u64) < last.bytes {
        let part = json!({"id": last.id, "offset": payload.len()});
        let part = house.ask::<Letter>("show", part).await.unwrap();
        payload.extend(BASE64_STANDARD.decode(part.payload.unwrap()).unwrap());
    }
    let whole = SensorRead {
        value: -1,
        ..large(0, LARGE)
    }
    .encode_to_vec();
    assert!(payload == whole, "{} bytes", payload.len());
    let retried: RetryAnswer = house.ask("retry", json!({"all": {}})).await.unwrap();
    assert_eq!((retried.failed_total, retried.left), (151, 151));
    assert!(retried.failed.len() < 151, "as many as fit");
    house.stop().await;
}
