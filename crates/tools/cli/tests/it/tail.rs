//! `tail`: stored and new events, decoded, through broker restarts.

use prost::Message as _;
use serde_json::{Value, json};

use crate::source::{PROTO, SensorRead, Source, eventually, reading};
use crate::tool::{self, Tool};

/// The events that `tail --no-follow` prints, as JSON.
async fn tail(source: &Source, args: &[&str]) -> Vec<Value> {
    let line = [&["tail", "--no-follow", "--output=json"], args].concat();
    let ended = source.tool(&line).await;
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn positions(events: &[Value]) -> Vec<u64> {
    events
        .iter()
        .map(|event| event["position"].as_u64().unwrap_or(0))
        .collect()
}

async fn described() -> Source {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    source
}

#[tokio::test]
async fn events_are_shown_decoded_with_their_place() {
    let source = described().await;
    source.append(1..=20).await;
    source.published(20).await;
    let events = tail(&source, &[]).await;
    assert_eq!(
        positions(&events),
        (11..=20).collect::<Vec<_>>(),
        "the last ten"
    );
    let last = events.last().expect("one");
    let partition = headwater::partition("sensor 6");
    assert_eq!(last["subject"], format!("sensors.v1.read.{partition}"));
    assert_eq!(last["source"], "sensors");
    assert_eq!(last["epoch"], *source.db.epoch());
    assert_eq!(last["sequence"], 20);
    assert_eq!(last["key"], "sensor 6");
    assert_eq!(last["event"], json!({"sensor": "sensor 6", "value": "20"}));
    let time = last["time"].as_str().expect("a time");
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let ended = source
        .tool(&["tail", "sensors", "--last=1", "--no-follow"])
        .await;
    let wanted = format!(
        "  sensors:20      sensors.v1.read.{partition:<8}  {{\"sensor\":\"sensor 6\",\"value\":\"20\"}}\n"
    );
    assert!(ended.stdout.ends_with(&wanted), "{ended:?}, not {wanted}");
    source.stop().await;
}

#[tokio::test]
async fn it_begins_where_it_is_told_to() {
    let source = described().await;
    source.append(1..=50).await;
    source.published(50).await;
    let sensor_1 = [1, 8, 15, 22, 29, 36, 43, 50];
    let cases: [(&[&str], Vec<u64>); 9] = [
        (&["--from=48"], vec![48, 49, 50]),
        (&["--from=48", "--count=2"], vec![48, 49]),
        (&["--last=3"], vec![48, 49, 50]),
        (&["--last=0"], vec![]),
        (&["--last=1000", "sensors.v1"], (1..=50).collect()),
        (&["--since=1h", "sensors.>"], (1..=50).collect()),
        (&["--since=0"], vec![]),
        (&["--key=sensor 1"], sensor_1.to_vec()),
        (&["--key=sensor 1", "--last=2", "*.v1.read"], vec![43, 50]),
    ];
    for (args, wanted) in cases {
        assert_eq!(positions(&tail(&source, args).await), wanted, "{args:?}");
    }
    // The matching events are few, and far back among many others.
    let partition = headwater::partition("sensor 1");
    let pattern = format!("sensors.v1.*.{partition}");
    let last = positions(&tail(&source, &[&pattern, "--last=3"]).await);
    assert_eq!(last.len(), 3);
    assert_eq!(last.last(), Some(&50));
    source.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_a_usage_error() {
    let source = described().await;
    let other = (headwater::partition("sensor 1") + 1) % 64;
    let elsewhere = format!("sensors.v1.read.{other}");
    for (args, why) in [
        (&["sensors..read"][..], "is not a valid subject"),
        (&[&elsewhere, "--key=sensor 1"], "does not match"),
        (&["--from=1", "--last=2"], "cannot be used with"),
        (&["--since=soon"], "must be a number of seconds"),
    ] {
        let ended = source.tool(&[&["tail"], args].concat()).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
    let ended = source.tool(&["tail", "gauges", "--no-follow"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains("the stream GAUGES does not exist"),
        "{ended:?}"
    );
    source.stop().await;
}

#[tokio::test]
async fn an_event_that_was_published_by_hand_or_does_not_decode_is_shown_as_that() {
    let source = described().await;
    source.append(1..=1).await;
    source.published(1).await;
    source
        .publish_raw("sensors.v1.read.5", None, &reading(77))
        .await;
    source
        .publish_raw("sensors.v1.unheard.5", None, &reading(78))
        .await;
    let events = tail(&source, &[]).await;
    assert_eq!(events[1]["position"], Value::Null);
    assert_eq!(events[1]["event"]["value"], "77");
    assert_eq!(events[2]["event"], Value::Null);
    let problem = events[2]["problem"].as_str().expect("a problem");
    assert!(
        problem.contains("sensors.v1.unheard.5 is not an event type"),
        "{problem}"
    );
    assert!(events[2]["payload"].is_string());
    let ended = source.tool(&["tail", "--no-follow"]).await;
    assert!(
        ended
            .stdout
            .contains("  by hand         sensors.v1.read.5 "),
        "{ended:?}"
    );
    assert!(ended.stdout.contains("NOT DECODED"), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn events_of_several_sources_are_in_the_order_of_their_times() {
    let source = described().await;
    // As after `nats stream edit --metadata`.
    let mut settings = headwater::stream::settings("gauges", 1);
    settings.metadata.clear();
    let jetstream = source.stream_of(settings).await;
    let mut wanted = Vec::new();
    for position in 1..=6 {
        if position % 2 == 0 {
            let sent =
                jetstream.publish("gauges.v1.read.3", reading(position).encode_to_vec().into());
            sent.await.expect("sent").await.expect("stored");
            wanted.push("gauges");
        } else {
            source.append(position..=position).await;
            source.published(position.div_ceil(2)).await;
            wanted.push("sensors");
        }
    }
    let of = |events: Vec<Value>| -> Vec<String> {
        let source = |event: &Value| event["source"].as_str().expect("a source").to_owned();
        events.iter().map(source).collect()
    };
    assert_eq!(of(tail(&source, &[]).await), wanted);
    assert_eq!(of(tail(&source, &["--last=3"]).await), wanted[3..]);
    let ended = source.tool(&["tail", "--from=1", "--no-follow"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn it_follows_through_a_restart_of_the_broker_and_the_loss_of_its_data() {
    let mut source = described().await;
    source.append(1..=3).await;
    source.published(3).await;
    let url = source.broker.url();
    let args = ["tail", "sensors", "--output=json", "--count=9"];
    let mut tool = tool::start(&args, &[("NATS_URL", &url)]);
    let mut printed = Vec::new();
    let next = async |tool: &mut Tool, printed: &mut Vec<u64>| {
        let event: Value = serde_json::from_str(&tool.says().await).expect("JSON");
        printed.push(event["position"].as_u64().expect("a position"));
    };
    for _ in 1..=3 {
        next(&mut tool, &mut printed).await;
    }
    source.broker.kill().expect("kill");
    source.append(4..=6).await;
    source.broker.restart().expect("restart");
    for _ in 4..=6 {
        next(&mut tool, &mut printed).await;
    }
    source.broker.kill().expect("kill");
    let store = source.broker.store().join("jetstream");
    std::fs::remove_dir_all(store).expect("remove");
    source.broker.restart().expect("restart");
    source.append(7..=9).await;
    for _ in 7..=9 {
        next(&mut tool, &mut printed).await;
    }
    assert_eq!(
        printed,
        (1..=9).collect::<Vec<u64>>(),
        "each once and in order"
    );
    assert_eq!(tool.end().await.code, Some(0));
    source.stop().await;
}

#[tokio::test]
async fn it_leaves_no_consumer_behind_that_somebody_has_to_clear_away() {
    let source = described().await;
    source.append(1..=3).await;
    source.published(3).await;
    assert_eq!(tail(&source, &["--last=2"]).await.len(), 2);
    eventually("no consumer is left", async || {
        let info = source.stream.get_info().await.expect("the stream's state");
        if info.state.consumer_count == 0 {
            Ok(())
        } else {
            Err(info.state.consumer_count)
        }
    })
    .await;
    source.stop().await;
}

#[tokio::test]
async fn a_key_that_is_in_the_partition_of_another_is_told_apart_by_content() {
    let source = described().await;
    let partition = headwater::partition("sensor 1");
    let same = (0..).map(|n| format!("other {n}"));
    let mut same = same.filter(|key| headwater::partition(key) == partition);
    let other = SensorRead {
        sensor: same.next().expect("there is one"),
        value: 5,
    };
    source.append(1..=1).await;
    source.published(1).await;
    let subject = headwater::subject_of(&other);
    source.publish_raw(&subject, None, &other).await;
    let events = tail(&source, &["--key=sensor 1"]).await;
    assert_eq!(positions(&events), [1]);
    let events = tail(&source, &["--key", &other.sensor]).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event"]["value"], "5");
    source.stop().await;
}
