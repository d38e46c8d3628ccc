//! The requests of `nats micro ls`, `info`, `stats` and `ping`, and the JSON schemas with which
//! the NATS CLI checks the answers: it does not show an answer that violates them.

use headwater::operator::{AdminEndpoints, ProjectionRegistry};
use headwater::request_reply::Questions;
use serde_json::{Value, json};

use crate::support::{Tasks, broker, bus, eventually, folder, open};

/// A service that answers, and its broker.
struct Micro {
    tasks: Tasks,
    bus: headwater::Bus,
    _broker: broker::Broker,
    _folder: tempfile::TempDir,
}

impl Micro {
    async fn start() -> Self {
        let (folder, broker) = (folder(), broker());
        let db = open(&folder, "sensors").await;
        let bus = bus(&broker, "sensors").await;
        let mut tasks = Tasks::none();
        let admin = AdminEndpoints::new("sensors", tasks.health.clone())
            .with_database(db, ProjectionRegistry::default());
        tasks.offer(admin, &bus, Questions::default());
        let micro = Self {
            tasks,
            bus,
            _broker: broker,
            _folder: folder,
        };
        eventually("all endpoints are offered", async || {
            let asked = micro.bus.client().request("$SRV.INFO", "".into()).await;
            let answer = asked.map_err(|error| error.to_string())?;
            let info: Value = serde_json::from_slice(&answer.payload).unwrap();
            // The last endpoint.
            let endpoints = info["endpoints"].as_array().unwrap();
            if endpoints.iter().any(|endpoint| endpoint["name"] == "fold") {
                Ok(())
            } else {
                Err(endpoints.len().to_string())
            }
        })
        .await;
        micro
    }

    async fn ask(&self, subject: &str) -> Value {
        let asked = self.bus.client().request(subject.to_owned(), "".into());
        serde_json::from_slice(&asked.await.unwrap().payload).unwrap()
    }
}

/// Checks what the schemas of all answers require.
fn expect_answer(answer: &Value, kind: &str) {
    assert_eq!(answer["type"], format!("io.nats.micro.v1.{kind}_response"));
    assert_eq!(answer["name"], "sensors");
    assert!(!answer["id"].as_str().unwrap().is_empty());
    let version = answer["version"].as_str().unwrap();
    assert_eq!(version.split('.').count(), 3, "{version}");
}

fn is_name(name: &Value) -> bool {
    let name = name.as_str().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !name.is_empty() && name.chars().all(is_plain)
}

#[tokio::test]
async fn nats_micro_ls_and_ping_show_the_service() {
    let micro = Micro::start().await;
    // `nats micro ls` asks $SRV.INFO, `nats micro ping` $SRV.PING.
    let info = micro.ask("$SRV.INFO").await;
    expect_answer(&info, "info");
    let description = info["description"].as_str().unwrap();
    assert!(
        description.starts_with("Headwater service sensors"),
        "{description}"
    );
    expect_answer(&micro.ask("$SRV.PING").await, "ping");
    expect_answer(&micro.ask("$SRV.PING.sensors").await, "ping");
    micro.tasks.stop().await;
}

#[tokio::test]
async fn nats_micro_info_says_what_each_endpoint_does_and_takes() {
    let micro = Micro::start().await;
    let info = micro.ask("$SRV.INFO.sensors").await;
    assert!(info["metadata"]["headwater.epoch"].is_string(), "{info}");
    for endpoint in info["endpoints"].as_array().unwrap() {
        assert!(is_name(&endpoint["name"]), "{endpoint}");
        let metadata = &endpoint["metadata"];
        assert!(metadata["headwater.description"].is_string(), "{endpoint}");
        assert_eq!(metadata["headwater.format"], "json", "{endpoint}");
        assert!(metadata["headwater.request"].is_string(), "{endpoint}");
    }
    // The endpoint accepts its own example.
    let subject = "headwater.sensors.dead-letters.list";
    let endpoints = info["endpoints"].as_array().unwrap();
    let list = endpoints
        .iter()
        .find(|one| one["subject"] == subject)
        .unwrap();
    let example = list["metadata"]["headwater.request"].as_str().unwrap();
    let asked = micro
        .bus
        .client()
        .request(subject, example.to_owned().into());
    let answer: Value = serde_json::from_slice(&asked.await.unwrap().payload).unwrap();
    assert_eq!(answer, json!({"letters": [], "total": 0}));
    micro.tasks.stop().await;
}

#[tokio::test]
async fn nats_micro_stats_counts_requests_and_errors_and_shows_the_last_one() {
    let micro = Micro::start().await;
    let id = micro.ask("$SRV.PING.sensors").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    micro.ask("headwater.sensors.status").await;
    let asked = micro
        .bus
        .client()
        .request("headwater.sensors.events", "nonsense".into());
    asked.await.unwrap();
    let stats = micro.ask(&format!("$SRV.STATS.sensors.{id}")).await;
    expect_answer(&stats, "stats");
    assert!(stats["started"].as_str().unwrap().ends_with('Z'), "{stats}");
    let endpoints = stats["endpoints"].as_array().unwrap();
    for endpoint in endpoints {
        assert!(is_name(&endpoint["name"]), "{endpoint}");
        for number in [
            "num_requests",
            "num_errors",
            "processing_time",
            "average_processing_time",
        ] {
            assert!(endpoint[number].is_u64(), "{number}: {endpoint}");
        }
        assert!(endpoint["last_error"].is_string(), "{endpoint}");
    }
    let of = |name: &str| endpoints.iter().find(|one| one["name"] == name).unwrap();
    assert_eq!(of("status")["num_requests"], 1);
    assert_eq!(of("status")["last_error"], "");
    assert_eq!(of("events")["num_errors"], 1);
    let error = of("events")["last_error"].as_str().unwrap();
    assert!(error.starts_with("400:send {\"from\":1"), "{error}");
    micro.tasks.stop().await;
}
