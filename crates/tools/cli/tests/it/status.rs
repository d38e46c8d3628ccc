//! `headwater status` against a source and a read store.

use headwater::health::State;
use serde_json::{Value, json};

use crate::house::House;
use crate::played::Played;
use crate::source::{PROTO, Source, eventually, tool};
use crate::tool::{self, Ended};

/// A source with 30 events, and a house that can apply them.
pub(crate) async fn shop() -> (Source, House) {
    let source = Source::start().await;
    let house = House::open(&source, true).await;
    source.append(1..=30).await;
    (source, house)
}

/// Runs the tool until `is_wanted`; returns its last run and its JSON.
pub(crate) async fn eventually_tool(
    source: &Source,
    args: &[&str],
    is_wanted: impl Fn(&Ended, &Value) -> bool,
) -> (Ended, Value) {
    eventually("the tool to see it", async || {
        let ended = source.tool(&[args, &["-ojson"]].concat()).await;
        let json: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        if is_wanted(&ended, &json) {
            Ok((ended, json))
        } else {
            Err(ended)
        }
    })
    .await
}

/// Waits until all is well.
pub(crate) async fn eventually_well(source: &Source) -> Value {
    let is_well = |ended: &Ended, status: &Value| {
        ended.code == Some(0) && status["projections"][0]["sources"]["sensors"]["position"] == 30
    };
    eventually_tool(source, &["status"], is_well).await.1
}

#[tokio::test]
async fn all_that_there_is_is_shown() {
    let (source, house) = shop().await;
    let status = eventually_well(&source).await;
    let names: Vec<&Value> = status["services"]
        .as_array()
        .expect("services")
        .iter()
        .map(|service| &service["name"])
        .collect();
    assert_eq!(names, ["house", "sensors"]);
    assert_eq!(status["services"][0]["instances"][0]["version"], "0.1.0");
    let stream = &status["streams"][0];
    assert_eq!(
        (&stream["name"], &stream["source"]),
        (&"SENSORS".into(), &"sensors".into())
    );
    assert_eq!(
        (&stream["events"], &stream["last_sequence"]),
        (&30.into(), &30.into())
    );
    assert!(stream["bytes"].as_u64() > Some(0) && stream["created_ms"].as_i64() > Some(0));
    let relay = &status["relays"][0];
    assert_eq!(
        (&relay["head"], &relay["published"]),
        (&30.into(), &30.into())
    );
    assert_eq!(relay["waiting"], 0);
    let lag = &status["projections"][0]["sources"]["sensors"];
    assert_eq!(
        (&lag["head"], &lag["waiting"], &lag["oldest_s"]),
        (&30.into(), &0.into(), &0.0.into())
    );
    assert_eq!(status["troubles"], serde_json::json!([]));

    let ended = source.tool(&["status"]).await;
    for said in [
        "SERVICE ",
        "STREAM ",
        "RELAY ",
        "PROJECTION ",
        "SENSORS  sensors",
        "all is well\n",
    ] {
        assert!(ended.stdout.contains(said), "{said}: {}", ended.stdout);
    }
    assert!(
        !ended.stdout.contains('\x1b'),
        "no colours without a terminal: {ended:?}"
    );
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_projection_that_stands_still_lags_in_events_and_in_seconds() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let pause = ["projection", "pause", "readings", "--reason=a look"];
    assert_eq!(source.tool(&pause).await.code, Some(0));
    source.append(31..=40).await;
    let is_late = |_: &Ended, status: &Value| {
        let lag = &status["projections"][0]["sources"]["sensors"];
        lag["waiting"] == 10 && lag["oldest_s"].as_f64() > Some(0.3)
    };
    let (ended, status) = eventually_tool(&source, &["status"], is_late).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(status["projections"][0]["paused"]["reason"], "a look");
    let ended = source.tool(&["status"]).await;
    assert!(ended.stdout.contains("PAUSED: a look"), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("warning: readings of house is paused since 20"),
        "{ended:?}"
    );
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn what_of_an_outbox_is_not_published_is_its_depth() {
    let source = Source::without_relay().await;
    source.append(1..=5).await;
    source.publish(&[1, 2]).await;
    let is_seen = |_: &Ended, status: &Value| status["relays"][0]["waiting"] == 3;
    let line = ["status", "--max-lag=0"];
    let (ended, status) = eventually_tool(&source, &line, is_seen).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let relay = &status["relays"][0];
    assert_eq!(
        (&relay["head"], &relay["published"]),
        (&5.into(), &2.into())
    );
    assert!(relay["oldest_s"].is_number(), "{relay}");
    let ended = source.tool(&["status", "--max-lag=1h"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn who_is_missing_is_named() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    house.close().await;
    let ended = source.tool(&["status"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("CRITICAL: no service that answers has the projection readings"),
        "{ended:?}"
    );
    source.stop().await;
}

#[tokio::test]
async fn while_a_source_is_away_its_stream_tells_the_lag() {
    let source = Source::silent().await;
    let house = House::open(&source, true).await;
    source.publish(&[1, 2, 3]).await;
    let is_at_3 =
        |_: &Ended, status: &Value| status["projections"][0]["sources"]["sensors"]["position"] == 3;
    eventually_tool(&source, &["status"], is_at_3).await;
    let pause = ["projection", "pause", "readings", "--reason=a look"];
    assert_eq!(source.tool(&pause).await.code, Some(0));
    source.publish(&[4, 5]).await;
    let is_late = |_: &Ended, status: &Value| {
        let lag = &status["projections"][0]["sources"]["sensors"];
        lag["head"] == 5 && lag["waiting"] == 2 && lag["oldest_s"].as_f64() > Some(0.1)
    };
    let (ended, status) = eventually_tool(&source, &["status"], is_late).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let relay = &status["relays"][0];
    assert_eq!(
        (&relay["head"], &relay["published"]),
        (&Value::Null, &5.into())
    );
    let said = "the service sensors does not answer";
    assert!(status["missing"].to_string().contains(said), "{status}");
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_watched_status_is_a_block_each_time_and_ends_with_its_reader() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let url = source.broker.url();
    let line = [
        "status",
        "--watch",
        "--every=10ms",
        "-ojson",
        "--server",
        &url,
    ];
    let mut tool = tool::start(&line, &[]);
    let lines = tool.read_and_close(2).await;
    for line in lines {
        let status: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(status["streams"][0]["events"], 30);
    }
    let ended = tool.end().await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{ended:?}");
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_reader_that_has_gone_does_not_change_the_exit_code() {
    let source = Source::without_relay().await;
    source.append(1..=5).await;
    let url = source.broker.url();
    eventually("the service to answer", async || {
        let mut tool = tool::start(&["status", "--max-lag=0", "--server", &url], &[]);
        tool.read_and_close(0).await;
        let ended = tool.end().await;
        if ended.code == Some(3) {
            Ok(())
        } else {
            Err(ended)
        }
    })
    .await;
    source.stop().await;
}

#[tokio::test]
async fn a_part_that_has_warned_is_shown_and_all_is_not_well() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let why = "the disk has room for an hour".to_owned();
    source.health.set("disk", State::Degraded(why));
    let ended = source.tool(&["status"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let said = "warning: sensors: disk: the disk has room for an hour\n";
    assert!(ended.stdout.contains(said), "{ended:?}");
    assert!(!ended.stdout.contains("all is well"), "{ended:?}");
    let ended = source.tool(&["check"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stdout.starts_with("WARNING - sensors: disk"),
        "{ended:?}"
    );
    source.health.forget("disk");
    eventually_well(&source).await;
    house.close().await;
    source.stop().await;
}

/// A source with one event, and a projection of two sources that claims to have applied two of it.
#[tokio::test]
async fn a_projection_ahead_of_its_source_and_letters_of_one_source_are_said_where_they_are() {
    let broker = broker::Broker::start_in_temp().expect("start nats-server");
    let letters = |count: u64| json!({"dead_letters": count, "by_hand": 0, "foreign_epoch": 0, "altered": 0, "missing": 0, "faults": []});
    let reader = |state: &str, why: &str| json!({"state": state, "detail": why});
    let source =
        |name| json!({"service": name, "epoch": "x7", "head": 1, "parts": {}, "projections": []});
    let status = json!({
        "service": "house", "epoch": "x8", "head": 0, "parts": {
            "readings from sensors": reader("ok", "applied up to 2"),
            "readings from valves": reader("degraded", "asks again and again: 409"),
        },
        "projections": [{
            "name": "readings", "version": 1, "positions": {"sensors": 2, "valves": 1},
            "is_complete": true, "dead_letters": 3,
            "sources": {"sensors": letters(3), "valves": letters(0)}, "can_rebuild": true,
        }],
    });
    let mut played = Vec::new();
    for (name, status) in [
        ("sensors", source("sensors")),
        ("valves", source("valves")),
        ("house", status),
    ] {
        let answer = move |_: &str, _: &Value, _| Ok(status.clone());
        played.push(Played::start(&broker, name, answer).await);
    }
    let ended = tool(&broker, &["status"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    for said in [
        "3 DEAD LETTERS",
        "valves   1        1   0    0 s     asks again and again: 409\n",
        "CRITICAL: house: readings from sensors: applied up to 2 of 1: ahead of sensors\n",
        "warning: house: readings from valves: asks again and again: 409\n",
    ] {
        assert!(ended.stdout.contains(said), "{said}{}", ended.stdout);
    }
    let ended = tool(&broker, &["doctor"]).await;
    let said = "ahead of sensors";
    assert!(ended.stdout.contains(said), "{ended:?}");
    let ended = tool(&broker, &["check"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

/// `nats consumer edit … --metadata` and `nats stream edit … --metadata` replace all metadata.
#[tokio::test]
async fn streams_and_consumers_are_known_by_their_names() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let metadata = std::collections::HashMap::from([("mine".to_owned(), "x".to_owned())]);
    let consumer = source
        .stream
        .consumer_info("readings")
        .await
        .expect("a consumer");
    let mut config = consumer.config;
    config.metadata = metadata.clone();
    let edited = source.stream.update_consumer(config).await;
    edited.expect("edited");
    let mut config = source.stream.cached_info().config.clone();
    config.metadata = metadata;
    source.change_stream(config).await;
    let ended = source.tool(&["doctor"]).await;
    assert!(
        ended
            .stdout
            .contains("ok    consumers     1, one per projection"),
        "{ended:?}"
    );
    let status = eventually_well(&source).await;
    assert_eq!(status["streams"][0]["source"], "sensors");
    house.close().await;
    source.stop().await;
}

/// Its stream has no metadata and no consumer, and it is away: only the schema bucket knows it.
#[tokio::test]
async fn a_source_that_once_described_its_events_is_missed() {
    let mut source = Source::silent().await;
    let mut config = source.stream.cached_info().config.clone();
    config.metadata = std::collections::HashMap::from([("mine".to_owned(), "x".to_owned())]);
    source.change_stream(config).await;
    let ended = source.tool(&["status"]).await;
    assert_eq!(ended.code, Some(0), "a foreign stream: {ended:?}");
    source.describe(PROTO).await;
    let ended = source.tool(&["status"]).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("SENSORS  sensors"), "{ended:?}");
    let said = "CRITICAL: the service sensors does not answer";
    assert!(ended.stdout.contains(said), "{ended:?}");
    source.stop().await;
}
