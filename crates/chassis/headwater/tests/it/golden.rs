//! How an event is on the bus and in a source's answers never changes: programs of other versions
//! write and read it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use headwater::database::Tx;
use headwater::outbox::Row;
use headwater::{ApplyError, Envelope, Projection};
use serde::Deserialize;
use serde_json::Value;

use crate::support::{
    Tasks, bus, eventually, execute, folder, is, jetstream, open, relaying, stored,
};

/// Written once. Never change it: add another file.
const GOLDEN: &str = include_str!("../golden/event.json");

#[derive(Deserialize)]
struct Golden {
    subject: String,
    headers: BTreeMap<String, String>,
    payload: String,
    row: Value,
}

fn golden() -> (Golden, Vec<u8>) {
    let golden: Golden = serde_json::from_str(GOLDEN).unwrap();
    let payload = BASE64_STANDARD.decode(&golden.payload).unwrap();
    (golden, payload)
}

#[tokio::test]
async fn a_relay_publishes_an_event_as_it_always_did() {
    let (golden, payload) = golden();
    let (folder, broker) = (folder(), crate::support::broker());
    let (db, bus) = (open(&folder, "sensors").await, bus(&broker, "world").await);
    let row: Row = serde_json::from_value(golden.row).unwrap();
    let insert = db.write(move |tx| {
        let sql = "INSERT INTO headwater_outbox (subject, key, payload, traceparent, recorded_at)
                   VALUES (?, ?, ?, ?, ?)";
        let values = [
            row.subject.into(),
            row.key.into(),
            row.payload.into(),
            row.traceparent.into(),
            row.recorded_at.into(),
        ];
        execute(tx, sql, values)
    });
    insert.await.unwrap();
    let relay = relaying(&db, &bus);
    eventually("the stream holds it", async || {
        is(stored(&bus, "sensors").await.len(), &1)
    })
    .await;
    let stream = jetstream(&bus).get_stream("SENSORS").await.unwrap();
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(*message.subject, *golden.subject);
    assert_eq!(message.payload, payload);
    for (name, value) in golden.headers {
        let found = message.headers.get(&*name).unwrap().as_str();
        assert_eq!(found, value.replace("golden", &db.epoch()), "{name}");
    }
    relay.stop().await;
}

/// Keeps what it gets.
#[derive(Debug, Default, Clone)]
struct Kept(Arc<Mutex<Vec<Envelope>>>);

impl Projection for Kept {
    const NAME: &'static str = "kept";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];

    fn apply(&self, _: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        self.0.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

#[tokio::test]
async fn a_projection_reads_an_event_as_it_always_was() {
    let (golden, payload) = golden();
    let (folder, broker) = (folder(), crate::support::broker());
    let (db, bus) = (open(&folder, "house").await, bus(&broker, "world").await);
    let jetstream = jetstream(&bus);
    let settings = headwater::stream::settings("sensors", 1);
    jetstream.create_stream(settings).await.unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in &golden.headers {
        headers.insert(name.as_str(), value.as_str());
    }
    let published =
        jetstream.publish_with_headers(golden.subject.clone(), headers, payload.clone().into());
    published.await.unwrap().await.unwrap();

    let kept = Kept::default();
    let mut reader = Tasks::none();
    reader.projection(kept.clone(), &db, &bus).await;
    let expected = Envelope {
        source: "sensors".into(),
        subject: golden.subject.into(),
        id: Some(golden.headers["Nats-Msg-Id"].parse().unwrap()),
        sequence: Some(1),
        payload: payload.into(),
        traceparent: Some(golden.headers["traceparent"].clone()),
    };
    eventually("the event is applied", async || {
        is(kept.0.lock().unwrap().clone(), &vec![expected.clone()])
    })
    .await;
    reader.stop().await;
}

#[test]
fn a_source_answers_with_an_event_of_its_outbox_as_it_always_did() {
    let (golden, payload) = golden();
    let row: Row = serde_json::from_value(golden.row.clone()).unwrap();
    assert_eq!(
        (&*row.payload, &*row.subject),
        (&*payload, &*golden.subject)
    );
    assert_eq!(serde_json::to_value(&row).unwrap(), golden.row);
}
