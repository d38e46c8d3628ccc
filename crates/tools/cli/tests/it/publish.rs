//! `publish` with events of a service that was not compiled into the tool.

use serde_json::{Value, json};

use crate::source::{PROTO, Source};
use crate::tool::{self, Ended};

async fn described() -> Source {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    source
}

async fn publish(source: &Source, subject: &str, json: &str) -> Ended {
    let args = ["publish", subject, "--json", json, "--output=json"];
    source.tool(&args).await
}

/// The reason of a refusal: an object on stdout, and nothing on stderr.
fn refused(ended: &Ended) -> String {
    let object: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(object["exit_code"].as_i64(), ended.code.map(i64::from));
    assert_eq!(ended.stderr, "", "{ended:?}");
    object["error"].as_str().expect("a text").to_owned()
}

async fn stored(source: &Source) -> u64 {
    let info = source.stream.get_info().await;
    info.expect("the stream's state").state.last_sequence
}

#[tokio::test]
async fn an_event_is_stored_in_the_partition_of_its_key() {
    let source = described().await;
    let event = r#"{"sensor": "attic", "value": 5}"#;
    let ended = publish(&source, "sensors.v1.read", event).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let published: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let subject = format!("sensors.v1.read.{}", headwater::partition("attic"));
    let wanted = json!({
        "stream": "SENSORS", "sequence": 1, "subject": subject,
        "message": "test.sensors.v1.SensorRead", "key": "attic", "bytes": 9,
    });
    assert_eq!(published, wanted);
    let shown = source.tool(&["tail", "--no-follow", "--output=json"]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!(shown["event"], json!({"sensor": "attic", "value": "5"}));
    assert_eq!(shown["position"], Value::Null);
    let ended = source
        .tool(&["publish", "sensors.v1.read", "--json", event])
        .await;
    let wanted = format!("stored as sequence 2 of SENSORS on {subject}; it has no position");
    assert!(ended.stdout.starts_with(&wanted), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn it_may_come_from_a_file_or_from_standard_input_and_have_a_partition() {
    let source = described().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), r#"{"sensor": "attic"}"#).expect("write");
    let path = file.path().to_str().expect("UTF-8");
    let ended = source
        .tool(&["publish", "sensors.v1.read", "--file", path])
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let url = source.broker.url();
    let own = headwater::partition("attic");
    let elsewhere = (own + 1) % 64;
    for (partition, complaint) in [(own, ""), (elsewhere, "belongs in partition")] {
        let subject = format!("sensors.v1.read.{partition}");
        let mut tool = tool::start(&["publish", &subject], &[("NATS_URL", &url)]);
        drop(tool.feed(r#"{"sensor": "attic", "value": "7"}"#).await);
        let ended = tool.end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.stdout.contains(&format!("on {subject};")),
            "{ended:?}"
        );
        assert!(ended.stderr.contains(complaint), "{ended:?}");
        assert_eq!(ended.stderr.is_empty(), complaint.is_empty(), "{ended:?}");
    }
    assert_eq!(stored(&source).await, 3);
    source.stop().await;
}

#[tokio::test]
async fn an_event_that_is_not_right_is_refused_and_nothing_is_stored() {
    let source = described().await;
    for (subject, json, why) in [
        (
            "sensors.v1.read",
            r#"{"sensor":"a","colour":1}"#,
            "its fields are sensor, value",
        ),
        (
            "sensors.v1.read",
            r#"{"sensor":"a","value":"x"}"#,
            "not a valid test.sensors.v1.SensorRead",
        ),
        (
            "sensors.v1.read",
            r#"{"sensor":"a","value":-1}"#,
            "not a valid test.sensors.v1.SensorRead",
        ),
        (
            "sensors.v1.read",
            r#"{"sensor":5}"#,
            "not a valid test.sensors.v1.SensorRead",
        ),
        (
            "sensors.v1.read",
            "{",
            "not a valid test.sensors.v1.SensorRead",
        ),
        (
            "sensors.v1.read",
            r#"{"sensor":"a"} {}"#,
            "trailing characters",
        ),
        (
            "sensors.v1.read",
            r#"{"value":5}"#,
            "its key, the field sensor, is empty",
        ),
        (
            "sensors.v1.read.64",
            r#"{"sensor":"a"}"#,
            "`64` is not a partition",
        ),
        (
            "sensors.v1.read.x.y",
            r#"{"sensor":"a"}"#,
            "`x.y` is not a partition",
        ),
        (
            "sensors.v1.broken",
            r#"{"sensor":"a"}"#,
            "is not an event type of sensors; its types are: sensors.v1.read",
        ),
        ("sensors", r#"{"sensor":"a"}"#, "is not an event type"),
        (
            "gauges.v1.read",
            r#"{"sensor":"a"}"#,
            "there is no schema of the events of gauges",
        ),
    ] {
        let ended = publish(&source, subject, json).await;
        assert_eq!(ended.code, Some(2), "{subject} {json}: {ended:?}");
        assert!(refused(&ended).contains(why), "{subject} {json}: {ended:?}");
    }
    assert_eq!(stored(&source).await, 0);
    source.stop().await;
}

#[tokio::test]
async fn without_the_stream_or_the_broker_it_says_so() {
    let mut source = Source::silent().await;
    source.describe(PROTO).await;
    source.stream_is_gone().await;
    let event = r#"{"sensor": "attic"}"#;
    let ended = publish(&source, "sensors.v1.read", event).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = refused(&ended);
    assert!(
        said.contains("the stream SENSORS does not exist"),
        "{ended:?}"
    );
    source.broker.kill().expect("kill");
    let ended = publish(&source, "sensors.v1.read", event).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
}
