//! `headwater provision` against a broker.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Config, stream::StorageType};
use broker::Broker;
use futures_util::TryStreamExt as _;
use headwater::stream;
use serde_json::Value;

use crate::source::tool;
use crate::tool;

/// The plan of the shop, as it is shipped.
pub(crate) const PLAN: &str = concat!(
    "--plan=",
    env!("CARGO_MANIFEST_DIR"),
    "/../../../deploy/nats/plan.json"
);

async fn jetstream(broker: &Broker) -> jetstream::Context {
    jetstream::new(async_nats::connect(broker.url()).await.expect("connect"))
}

fn broker() -> Broker {
    Broker::start_in_temp().expect("start nats-server")
}

async fn config(broker: &Broker, name: &str) -> Option<Config> {
    let stream = jetstream(broker).await.get_stream(name).await.ok()?;
    Some(stream.cached_info().config.clone())
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_made_and_makes_nothing() {
    let broker = broker();
    let ended = tool(&broker, &["provision", "--dry-run", PLAN]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let said = "ORDERS: to be created\nPRODUCTS: to be created\nUSERS: to be created\n\
                KV_headwater-schemas: to be created\nORDERS purchases: to be created\n";
    assert!(ended.stdout.starts_with(said), "{ended:?}");
    assert!(ended.stdout.ends_with("nothing was done\n"), "{ended:?}");
    assert!(config(&broker, "ORDERS").await.is_none());
}

#[tokio::test]
async fn streams_are_made_with_their_settings_and_a_second_run_has_nothing_to_do() {
    let broker = broker();
    let ended = tool(&broker, &["provision", "sensors", "well"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(
        ended.stdout,
        "SENSORS: created\nWELL: created\nall is as it should be\n"
    );
    let made = config(&broker, "SENSORS").await.expect("a stream");
    assert_eq!(
        stream::differences(&made, &stream::settings("sensors", 1)),
        []
    );
    assert!(
        config(&broker, "ORDERS").await.is_none(),
        "only what is named"
    );
    let ended = tool(&broker, &["provision", "sensors", "--dry-run", "-ojson"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(report["streams"][0]["outcome"], "same");
}

/// Consumers of projections: a consumer with a harmful setting is created again, labels are
/// updated, and a second run has nothing to do.
#[tokio::test]
async fn consumers_are_made_and_mended() {
    let broker = broker();
    let made = tool(&broker, &["provision", PLAN]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let stream = jetstream(&broker).await.get_stream("ORDERS").await.unwrap();
    assert_eq!(stream.cached_info().state.consumer_count, 3);
    let info = stream.consumer_info("purchases").await.unwrap();
    let spoilt = async_nats::jetstream::consumer::Config {
        filter_subject: "orders.v1.placed.1".to_owned(),
        description: Some("mine".to_owned()),
        ..info.config
    };
    stream.update_consumer(spoilt).await.unwrap();
    let ended = tool(&broker, &["provision", "orders"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let ended = tool(&broker, &["provision", "orders", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "ORDERS purchases: changed\n  settings\n    - it filters\n";
    assert!(ended.stdout.contains(said), "{ended:?}");
    let info = stream.consumer_info("purchases").await.unwrap();
    assert_eq!(info.config.filter_subject, "");
    let ended = tool(&broker, &["provision", "--dry-run"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn what_differs_is_shown_and_changed_only_when_that_is_meant() {
    let broker = broker();
    let spoilt = Config {
        duplicate_window: Duration::from_mins(2),
        max_age: Duration::from_hours(1),
        allow_direct: false,
        ..stream::settings("sensors", 1)
    };
    let made = jetstream(&broker).await.create_stream(spoilt).await;
    made.expect("a stream");
    let ended = tool(&broker, &["provision", "sensors", "--dry-run"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let said = "SENSORS: to be changed\n  duplicate window\n    - 120s\n    + 100ms\n  \
                direct get\n    - false\n    + true\nnothing was done\n";
    assert_eq!(ended.stdout, said);

    let ended = tool(&broker, &["provision", "sensors"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--yes"), "{ended:?}");
    let is = config(&broker, "SENSORS").await.expect("a stream");
    assert!(!is.allow_direct, "nothing was done");

    let ended = tool(&broker, &["provision", "sensors", "--yes"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let is = config(&broker, "SENSORS").await.expect("a stream");
    assert_eq!(
        stream::differences(&is, &stream::settings("sensors", 1)),
        []
    );
    assert_eq!(
        is.max_age,
        Duration::from_hours(1),
        "no service requires it"
    );
}

#[tokio::test]
async fn what_cannot_be_changed_is_explained_and_left_alone() {
    let broker = broker();
    let spoilt = Config {
        storage: StorageType::Memory,
        allow_direct: false,
        ..stream::settings("sensors", 1)
    };
    let made = jetstream(&broker).await.create_stream(spoilt).await;
    made.expect("a stream");
    let ended = tool(&broker, &["provision", "sensors", "well", "--yes"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("nats stream rm SENSORS"), "{ended:?}");
    let is = config(&broker, "SENSORS").await.expect("a stream");
    assert!(!is.allow_direct, "none of it is changed");
    assert!(
        config(&broker, "WELL").await.is_some(),
        "the others are made"
    );
}

#[tokio::test]
async fn replicas_that_nobody_asked_for_stay_as_they_are() {
    let broker = broker();
    let made = tool(&broker, &["provision", "sensors"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let ended = tool(
        &broker,
        &["provision", "sensors", "--dry-run", "--replicas=3"],
    )
    .await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended.stdout.contains("  replicas\n    - 1\n    + 3\n"),
        "{ended:?}"
    );
    let ended = tool(&broker, &["provision", "sensors", "--replicas=0"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

/// Nothing of the shop is compiled in: a plan lists what never ran, and existing objects identify
/// themselves.
#[tokio::test]
async fn only_a_plan_names_what_never_ran_and_the_bus_names_the_rest() {
    let broker = broker();
    let bare = tool(&broker, &["provision", "--dry-run"]).await;
    let said = "KV_headwater-schemas: to be created\nnothing was done\n";
    assert_eq!((bare.code, &*bare.stdout), (Some(3), said), "{bare:?}");

    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("wells.json");
    let plan = plan.to_str().expect("UTF-8");
    let text = r#"{"sources": ["wells", "pumps"], "projections": {"levels": ["wells"]}}"#;
    std::fs::write(plan, text).expect("write the plan");
    let environment = [("NATS_URL", &*broker.url()), ("HEADWATER_PLAN", plan)];
    let made = tool::start(&["provision"], &environment).end().await;
    assert_eq!(made.code, Some(0), "{made:?}");
    for said in ["PUMPS: created", "WELLS: created", "WELLS levels: created"] {
        assert!(made.stdout.contains(said), "{made:?}");
    }
    assert!(config(&broker, "USERS").await.is_none());

    let again = tool(&broker, &["provision", "--dry-run"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    for said in ["PUMPS: as", "WELLS: as", "WELLS levels-verify: as"] {
        assert!(again.stdout.contains(said), "without the plan: {again:?}");
    }
}

#[tokio::test]
async fn a_plan_that_cannot_be_followed_is_said_before_anything_is_done() {
    let broker = broker();
    let folder = tempfile::tempdir().expect("a folder");
    let plan = folder.path().join("plan.json");
    let flag = format!("--plan={}", plan.display());
    let mut wrong = Vec::new();
    for text in [
        None,
        Some("{"),
        Some(r#"{"streams": []}"#),
        Some(r#"{"sources": ["wells"], "projections": {"levels": ["pumps"]}}"#),
    ] {
        if let Some(text) = text {
            std::fs::write(&plan, text).expect("write the plan");
        }
        for command in ["provision", "status", "doctor"] {
            let ended = tool(&broker, &[command, &flag]).await;
            assert_eq!(ended.code, Some(2), "{ended:?}");
            let said = format!("headwater: the plan {} is not valid: ", plan.display());
            assert!(ended.stderr.contains(&said), "{ended:?}");
            wrong.push(ended.stderr);
        }
        let ended = tool(&broker, &["check", &flag]).await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
    }
    let said = wrong.last().expect("there are some");
    assert!(
        said.contains("levels reads pumps, which is not one of its sources"),
        "{said}"
    );
    let names = jetstream(&broker).await.stream_names();
    let names: Vec<String> = names.try_collect().await.expect("the names of streams");
    assert!(names.is_empty(), "{names:?}");
}
