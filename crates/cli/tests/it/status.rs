//! `headwater status` against a source and a read store.

use serde_json::Value;

use crate::house::House;
use crate::source::{Source, eventually};
use crate::tool::{Ended, Tool};

/// A source with 30 events, and a house that can apply them.
pub(crate) async fn shop() -> (Source, House) {
    let source = Source::start().await;
    let house = House::open(&source, true).await;
    source.append(1..=30).await;
    (source, house)
}

/// Runs the tool until it is as `is_wanted`; its last run, and its JSON.
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
        "nobody sees colours: {ended:?}"
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
    let mut tool = Tool::start(&line, &[]);
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
        let mut tool = Tool::start(&["status", "--max-lag=0", "--server", &url], &[]);
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
