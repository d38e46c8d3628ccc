//! Admin endpoints, as `nats request` and `nats micro` see them.

use std::time::Duration;

use broker::Broker;
use headwater::health::State;
use headwater::{Bus, Database, MAX_PAYLOAD};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Tasks, append, broker, bus, eventually, folder, large, open, read, reads};

/// A service with admin endpoints.
struct Service {
    tasks: Tasks,
    db: Database,
    bus: Bus,
    _broker: Broker,
    _folder: TempDir,
}

async fn service() -> Service {
    let (folder, broker) = (folder(), broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut tasks = Tasks::none();
    tasks.operator(&db, &bus);
    let service = Service {
        tasks,
        db,
        bus,
        _broker: broker,
        _folder: folder,
    };
    eventually("the admin endpoints answer", async || {
        service.try_ask("$SRV.PING.sensors", "").await
    })
    .await;
    service
}

impl Service {
    async fn try_ask(&self, subject: &str, request: &str) -> Result<async_nats::Message, String> {
        let answer = self
            .bus
            .client()
            .request(subject.to_owned(), request.to_owned().into());
        answer.await.map_err(|error| error.to_string())
    }

    async fn ask(&self, subject: &str, request: &str) -> Value {
        let answer = self.try_ask(subject, request).await.unwrap();
        if let Some(headers) = &answer.headers
            && let Some(error) = headers.get("Nats-Service-Error")
        {
            let code = headers.get("Nats-Service-Error-Code").unwrap().as_str();
            return json!({ "error": error.as_str(), "code": code });
        }
        serde_json::from_slice(&answer.payload).unwrap()
    }
}

#[tokio::test]
async fn the_status_is_json_with_head_epoch_and_parts() {
    let service = service().await;
    append(&service.db, reads(1..=3)).await;
    service
        .tasks
        .health
        .set("relay", State::Degraded("waiting".to_owned()));
    let status = service.ask("headwater.sensors.status", "").await;
    assert_eq!(
        status,
        json!({
            "service": "sensors",
            "epoch": &*service.db.epoch(),
            "head": 3,
            "can_back_up": true,
            "parts": { "relay": { "state": "degraded", "detail": "waiting" } },
            "projections": [],
        })
    );
    service.tasks.stop().await;
}

#[tokio::test]
async fn events_are_given_by_position() {
    let service = service().await;
    append(&service.db, reads(1..=5)).await;
    let answer = service
        .ask("headwater.sensors.events", r#"{"from":2,"limit":2}"#)
        .await;
    assert_eq!(answer["epoch"], *service.db.epoch());
    assert_eq!(answer["head"], 5);
    let events = answer["events"].as_array().unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["position"], 2);
    assert_eq!(events[1]["position"], 3);
    assert_eq!(events[0]["key"], "attic");
    let subject = headwater::subject_of(&read("attic", 2));
    assert_eq!(events[0]["subject"], subject);
    let one = service
        .ask("headwater.sensors.events", r#"{"from":5}"#)
        .await;
    assert_eq!(
        one["events"].as_array().unwrap().len(),
        1,
        "the limit is 1 by default"
    );
    let none = service
        .ask("headwater.sensors.events", r#"{"from":6,"limit":9}"#)
        .await;
    assert_eq!(none["events"], json!([]));
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_wrong_request_gives_a_service_error() {
    let service = service().await;
    for (request, code) in [
        ("", "400"),
        ("nonsense", "400"),
        (r#"{"limit":1}"#, "400"),
        (r#"{"from":1,"to":2}"#, "400"),
        (r#"{"from":-1}"#, "400"),
        (r#"{"from":1,"epoch":"another"}"#, "404"),
    ] {
        let answer = service.ask("headwater.sensors.events", request).await;
        assert_eq!(answer["code"], code, "{request} gave {answer}");
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
    service.tasks.stop().await;
}

#[tokio::test]
async fn numbers_that_no_outbox_reaches_do_not_stop_the_service() {
    let service = service().await;
    append(&service.db, reads(1..=1)).await;
    let beyond = format!(r#"{{"from":{},"limit":1}}"#, u64::MAX);
    let answer = service.ask("headwater.sensors.events", &beyond).await;
    assert_eq!(answer["code"], "400", "{answer}");
    let many = format!(r#"{{"from":1,"limit":{}}}"#, u64::MAX);
    let answer = service.ask("headwater.sensors.events", &many).await;
    assert_eq!(answer["events"].as_array().unwrap().len(), 1, "{answer}");
    service.tasks.stop().await;
}

#[tokio::test]
async fn an_answer_fits_into_a_message_however_large_the_events_are() {
    let service = service().await;
    let halves = (0..4).map(|value| large(value, MAX_PAYLOAD / 2));
    append(&service.db, halves.collect()).await;
    let long_keys = (0..1000).map(|value| read(&format!("{value}{}", "x".repeat(1000)), value));
    append(&service.db, long_keys.collect()).await;
    let mut from = 1;
    while from <= 1004 {
        let request = format!(r#"{{"from":{from},"limit":1000}}"#);
        let answer = service.ask("headwater.sensors.events", &request).await;
        let events = answer["events"]
            .as_array()
            .unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(events[0]["position"], from);
        from += events.len();
    }
    service.tasks.stop().await;
}

#[tokio::test]
async fn an_event_of_the_largest_size_can_be_asked_for() {
    let service = service().await;
    append(&service.db, vec![large(1, MAX_PAYLOAD - 20)]).await;
    let answer = service
        .ask("headwater.sensors.events", r#"{"from":1}"#)
        .await;
    assert_eq!(answer["events"][0]["position"], 1, "{}", answer["error"]);
    service.tasks.stop().await;
}

#[tokio::test]
async fn the_services_api_names_the_service_and_its_endpoints() {
    let service = service().await;
    let info = service.ask("$SRV.INFO.sensors", "").await;
    assert_eq!(info["name"], "sensors");
    let mut subjects: Vec<_> = info["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| endpoint["subject"].as_str().unwrap())
        .collect();
    subjects.sort_unstable();
    assert_eq!(
        subjects,
        [
            "headwater.sensors.backup",
            "headwater.sensors.backup.status",
            "headwater.sensors.backup.stop",
            "headwater.sensors.dead-letters.discard",
            "headwater.sensors.dead-letters.discarded",
            "headwater.sensors.dead-letters.list",
            "headwater.sensors.dead-letters.retry",
            "headwater.sensors.dead-letters.show",
            "headwater.sensors.events",
            "headwater.sensors.fold",
            "headwater.sensors.fold.stop",
            "headwater.sensors.projections.pause",
            "headwater.sensors.projections.resume",
            "headwater.sensors.rebuild",
            "headwater.sensors.replay",
            "headwater.sensors.status",
            "headwater.sensors.verify",
        ]
    );
    service.tasks.stop().await;
}

#[tokio::test]
async fn it_is_offered_also_when_the_broker_comes_later() {
    let (folder, mut broker) = (folder(), broker());
    broker.kill().unwrap();
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut tasks = Tasks::none();
    tasks.operator(&db, &bus);
    broker.restart().unwrap();
    let request = async || {
        let asked = bus.client().request("headwater.sensors.status", "".into());
        match tokio::time::timeout(Duration::from_secs(1), asked).await {
            Ok(Ok(answer)) => Ok(answer),
            other => Err(format!("{other:?}")),
        }
    };
    eventually("the status is answered", request).await;
    tasks.stop().await;
}
