//! `headwater stream restore` with streams that differ from the outbox.

use serde_json::{Value, json};

use crate::house::House;
use crate::source::{Source, eventually, reading, tool};
use crate::status::eventually_tool;
use crate::tool::Ended;

/// Waits until the relay has stopped and reports `why`.
async fn eventually_stopped(source: &Source, why: &str) {
    let is_stopped = |_: &Ended, status: &Value| {
        let state = &status["relays"][0]["state"];
        state["state"] == "failed"
            && state["detail"]
                .as_str()
                .is_some_and(|text| text.contains(why))
    };
    eventually_tool(source, &["status"], is_stopped).await;
}

/// Waits until the house has applied up to `position`.
async fn eventually_applied(source: &Source, position: u64) {
    let is_there = |_: &Ended, status: &Value| {
        status["projections"][0]["sources"]["sensors"]["position"] == position
    };
    eventually_tool(source, &["status"], is_there).await;
}

#[tokio::test]
async fn a_forged_next_event_is_replaced_by_the_real_one() {
    let source = Source::start().await;
    let house = House::open(&source, true).await;
    source.append(1..=17).await;
    source.published(17).await;
    eventually_applied(&source, 17).await;
    let mut config = source.stream.get_info().await.expect("the stream").config;
    config.max_bytes = 1 << 30;
    config
        .metadata
        .insert("team".to_owned(), "attic".to_owned());
    source.change_stream(config.clone()).await;
    source
        .publish_raw("sensors.v1.read.7", None, &reading(5000))
        .await;
    source.publish_as(18, &reading(999)).await;
    eventually_stopped(&source, "the stream is ahead").await;
    // The command is answered, but the forged event has its position in the stream.
    source.append(18..=18).await;
    eventually_stopped(&source, "another in the database").await;

    let ended = source.tool(&["stream", "restore", "sensors"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    for said in [
        "1 events that were published by hand",
        "1 events that differ from the outbox",
        "readings of house is rebuilt",
        "--yes",
    ] {
        assert!(ended.stderr.contains(said), "{said}: {ended:?}");
    }
    assert_eq!(source.values().await.len(), 19, "nothing was done");

    let line = ["stream", "restore", "sensors", "--yes", "-ojson"];
    let ended = source.tool(&line).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(report["published"], 18);
    assert_eq!(report["lost"]["by_hand"], 1);
    let rebuilt = json!([{"service": "house", "projection": "readings", "failure": null}]);
    assert_eq!(report["rebuilt"], rebuilt);
    assert_eq!(source.values().await, (1..=18).collect::<Vec<u64>>());
    let now = source.stream.get_info().await.expect("the stream").config;
    assert_eq!(now, config, "an operator's settings stay");
    let (exit, report) = source.verify().await;
    assert_eq!(exit, 0, "{report}");
    let ended = source.tool(&["status"]).await;
    assert!(ended.stdout.contains("all is well"), "{ended:?}");
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_stream_that_nobody_can_use_is_made_again_without_what_keeps_events_out() {
    let source = Source::start().await;
    source.append(1..=3).await;
    source.published(3).await;
    let mut config = source.stream.get_info().await.expect("the stream").config;
    config.max_bytes = 1 << 30;
    config.sealed = true;
    source.change_stream(config).await;
    eventually_stopped(&source, "SENSORS is sealed").await;
    let ended = source
        .tool(&["stream", "restore", "sensors", "--yes"])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(source.values().await, [1, 2, 3]);
    let now = source.stream.get_info().await.expect("the stream").config;
    assert_eq!((now.sealed, now.max_bytes), (false, 1 << 30));
    source.stop().await;
}

#[tokio::test]
async fn nothing_is_deleted_where_nobody_would_fill_it() {
    let source = Source::silent().await;
    source.publish(&[1, 2, 3]).await;
    let line = ["stream", "restore", "sensors", "--yes", "--timeout=1s"];
    let ended = source.tool(&line).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_eq!(source.values().await, [1, 2, 3]);
    let ended = tool(&source.broker, &["stream", "restore", "No.Source", "--yes"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[tokio::test]
async fn a_stream_that_drops_events_or_begins_late_is_not_well() {
    let source = Source::start().await;
    source.append(1..=9).await;
    source.published(9).await;
    let purge = source.stream.purge().sequence(4);
    purge.await.expect("purged");
    let (ended, _) = eventually_tool(&source, &["status"], |ended, _| ended.code == Some(3)).await;
    assert!(
        ended.stdout.contains("SENSORS begins with position 4"),
        "{ended:?}"
    );
    let ended = source.tool(&["doctor"]).await;
    assert!(
        ended.stdout.contains("headwater stream restore sensors"),
        "{ended:?}"
    );
    let ended = source
        .tool(&["stream", "restore", "sensors", "--yes"])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    eventually("all is well", async || {
        let ended = source.tool(&["status"]).await;
        if ended.code == Some(0) {
            Ok(())
        } else {
            Err(ended)
        }
    })
    .await;
    let mut config = source.stream.get_info().await.expect("the stream").config;
    config.max_age = std::time::Duration::from_hours(1);
    source.change_stream(config).await;
    for command in ["status", "doctor"] {
        let ended = source.tool(&[command]).await;
        let said = "SENSORS drops events by its max_age of 3600s";
        assert!(ended.stdout.contains(said), "{ended:?}");
    }
    source.stop().await;
}

/// The database was lost: the new one does not know what the former epoch published.
#[tokio::test]
async fn a_new_epoch_is_begun_by_the_one_who_says_so() {
    let mut source = Source::without_relay().await;
    for position in 1..=3 {
        let id = format!("sensors.former.{position}");
        let event = reading(position);
        source
            .publish_raw("sensors.v1.read.7", Some(&id), &event)
            .await;
    }
    source.begin_relay();
    eventually_stopped(&source, "events of the epoch former up to position 3").await;
    for (command, code) in [("status", 3), ("doctor", 3), ("verify", 1)] {
        let ended = source.tool(&[command]).await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(
            ended.stdout.contains("headwater stream restore sensors"),
            "{ended:?}"
        );
    }
    source.append(1..=2).await;
    let ended = source
        .tool(&["stream", "restore", "sensors", "--yes"])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("3 events of other epochs"),
        "{ended:?}"
    );
    assert_eq!(source.values().await, [1, 2]);
    source.stop().await;
}
