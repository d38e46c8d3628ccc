//! `verify` compares streams with outboxes: differences are found and named, agreement is not.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use prost::Message as _;
use serde_json::{Value, json};

use crate::source::{SensorRead, Source, eventually, reading, tool};

/// The report of the source without differences.
fn well(source: &Source, head: u64) -> Value {
    json!({
        "source": "sensors", "epoch": &*source.db.epoch(), "head": head, "events": head,
        "missing": {}, "doubled": [], "out_of_order": [], "altered": [], "ahead": [],
        "by_hand": 0, "former": {}, "holes": 0,
    })
}

/// Verifies: the report must be that of a healthy source except for `differences`.
async fn expect(source: &Source, head: u64, code: i32, differences: Value) {
    let mut expected = well(source, head);
    for (name, value) in differences.as_object().expect("an object") {
        expected[name] = value.clone();
    }
    let (exit, mut report) = source.verify().await;
    // Other tests check the content of the events.
    for kind in ["altered", "ahead"] {
        let events = report["sources"][0][kind].as_array_mut();
        for event in events.into_iter().flatten() {
            let event = event.as_object_mut().expect("an event");
            event.retain(|name, _| name != "stream" && name != "outbox");
        }
    }
    assert_eq!(report["sources"], json!([expected]), "{report}");
    assert_eq!(exit, code, "{report}");
}

#[tokio::test]
async fn a_stream_that_agrees_with_its_outbox_is_well() {
    let source = Source::start().await;
    expect(&source, 0, 0, json!({})).await;
    source.append(1..=2500).await;
    expect(&source, 2500, 0, json!({})).await;
    let ended = source.tool(&["verify"]).await;
    let said = "sensors: the stream agrees with the outbox at 2500, 2500 events\nall agree\n";
    assert_eq!(ended.stdout, said);
    assert_eq!(
        ended.stderr, "",
        "nothing is drawn where there is no terminal"
    );
    source.stop().await;
}

#[tokio::test]
async fn writing_goes_on_and_is_no_difference() {
    let source = Source::start().await;
    source.append(1..=200).await;
    let mut next = 201;
    let verify = async {
        for _ in 0..3 {
            let (exit, report) = source.verify().await;
            assert_eq!(exit, 0, "{report}");
        }
    };
    let write = async {
        loop {
            source.append(next..=next + 9).await;
            next += 10;
            // No faster than the relay, or verifying would not end.
            source.published(next - 100).await;
        }
    };
    tokio::select! {
        () = verify => {}
        () = write => {}
    }
    assert!(next > 300, "little was written meanwhile: {next}");
    source.stop().await;
}

/// The outbox has grown since it was read last.
#[tokio::test]
async fn events_that_come_while_it_waits_are_not_ahead() {
    let source = Source::without_relay().await;
    source.append(1..=3).await;
    source.publish(&[1, 2]).await;
    let verify = source.verify();
    let publish = async {
        let client = async_nats::connect(source.broker.url()).await;
        let client = client.expect("connect");
        eventually("the outbox to be read", async || {
            let asked = client.request("$SRV.STATS.sensors", "".into()).await;
            let stats = asked.map_err(|error| error.to_string())?;
            let stats: Value = serde_json::from_slice(&stats.payload).expect("JSON");
            let mut endpoints = stats["endpoints"].as_array().into_iter().flatten();
            let events = endpoints.find(|endpoint| endpoint["name"] == "events");
            match events.map(|events| &events["num_requests"]) {
                Some(asked) if asked != 0 => Ok(()),
                _ => Err(stats.to_string()),
            }
        })
        .await;
        source.append(4..=5).await;
        source.publish(&[3, 4, 5]).await;
    };
    let ((exit, report), ()) = tokio::join!(verify, publish);
    assert_eq!(exit, 0, "{report}");
    assert_eq!(report["sources"][0]["head"], 3);
    source.stop().await;
}

#[tokio::test]
async fn a_lost_event_is_found() {
    let source = Source::start().await;
    source.append(1..=1500).await;
    expect(&source, 1500, 0, json!({})).await;
    source.stream.delete_message(700).await.expect("deleted");
    let lost = json!({"events": 1499, "missing": {"700": 700}, "holes": 1});
    expect(&source, 1500, 3, lost).await;
    let ended = source.tool(&["verify"]).await;
    let said = "sensors: the stream DIFFERS from the outbox at 1500, 1499 events; \
                1 sequences without an event\n  missing: 1\n    position 700\n";
    assert!(ended.stdout.starts_with(said), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn events_that_never_came_are_missing() {
    let source = Source::without_relay().await;
    source.append(1..=9).await;
    source.publish(&[1, 2, 6]).await;
    let ended = source.tool(&["verify", "--wait=0", "--output=json"]).await;
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(report["sources"][0]["missing"], json!({"3": 5, "7": 9}));
    assert_eq!(ended.code, Some(3), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_doubled_event_is_found() {
    let source = Source::start().await;
    source.append(1..=1200).await;
    expect(&source, 1200, 0, json!({})).await;
    source.publish(&[5]).await;
    let doubled = json!([{"position": 5, "sequence": 5, "again": 1201}]);
    let differences = json!({"events": 1201, "doubled": doubled});
    expect(&source, 1200, 3, differences).await;
    source.stop().await;
}

#[tokio::test]
async fn an_event_out_of_order_is_found() {
    let source = Source::without_relay().await;
    source.append(1..=5).await;
    source.publish(&[1, 3, 2, 4, 5]).await;
    let late = json!([{"position": 2, "sequence": 3, "after": 3}]);
    expect(&source, 5, 3, json!({"out_of_order": late})).await;
    source.stop().await;
}

#[tokio::test]
async fn an_altered_event_is_found() {
    let source = Source::without_relay().await;
    source.append(1..=6).await;
    source.publish(&[1, 2]).await;
    let mut wrong = reading(3);
    wrong.value += 1;
    source.publish_as(3, &wrong).await;
    let id = format!("sensors.{}.4", source.db.epoch());
    source
        .publish_raw("sensors.v1.red.4", Some(&id), &reading(4))
        .await;
    source.publish(&[5, 6]).await;
    let altered = json!([
        {"position": 3, "sequence": 3, "what": "payload"},
        {"position": 4, "sequence": 4, "what": "subject"},
    ]);
    expect(&source, 6, 3, json!({"altered": altered})).await;
    let (_, report) = source.verify().await;
    let found = &report["sources"][0]["altered"][0];
    let encoded = |event: &SensorRead| BASE64_STANDARD.encode(event.encode_to_vec());
    assert_eq!(found["stream"]["payload"], encoded(&wrong), "{found}");
    assert_eq!(found["outbox"]["payload"], encoded(&reading(3)), "{found}");
    let ended = source.tool(&["verify"]).await;
    let said = [
        "the stream has sensors.v1.read",
        "the outbox has sensors.v1.read",
    ];
    assert!(
        said.iter().all(|said| ended.stdout.contains(said)),
        "{ended:?}"
    );
    let advice = "headwater stream restore sensors";
    assert!(ended.stdout.contains(advice), "{ended:?}");
    source.stop().await;
}

/// The copy is far behind the original.
#[tokio::test]
async fn an_altered_copy_is_found() {
    let source = Source::start().await;
    source.append(1..=1200).await;
    expect(&source, 1200, 0, json!({})).await;
    let mut wrong = reading(7);
    wrong.value += 1;
    source.publish_as(7, &wrong).await;
    let altered = json!([{"position": 7, "sequence": 1201, "what": "payload"}]);
    let doubled = json!([{"position": 7, "sequence": 7, "again": 1201}]);
    let differences = json!({"events": 1201, "altered": altered, "doubled": doubled});
    expect(&source, 1200, 3, differences).await;
    source.stop().await;
}

#[tokio::test]
async fn an_event_beyond_the_outbox_is_found() {
    let source = Source::without_relay().await;
    source.append(1..=3).await;
    source.publish(&[1, 2, 3, 4]).await;
    let ahead = json!([{"position": 4, "sequence": 4}]);
    expect(&source, 3, 3, json!({"events": 4, "ahead": ahead})).await;
    source.stop().await;
}

#[tokio::test]
async fn what_people_publish_and_what_former_lives_left_is_only_said() {
    let source = Source::without_relay().await;
    source.append(1..=3).await;
    source.publish(&[1]).await;
    let mut theirs = reading(1);
    theirs.value = 77;
    for id in [None, Some("something-of-their-own"), Some("gauges.x7.2")] {
        source.publish_raw("sensors.v1.read.1", id, &theirs).await;
    }
    for position in 1..=2 {
        let id = format!("sensors.former.{position}");
        source
            .publish_raw("sensors.v1.read.1", Some(&id), &theirs)
            .await;
    }
    source.publish(&[2, 3]).await;
    source.stream.delete_message(2).await.expect("deleted");
    let said = json!({"by_hand": 2, "former": {"former": 2}, "holes": 1});
    expect(&source, 3, 0, said).await;
    source.stop().await;
}

#[tokio::test]
async fn the_last_event_may_be_gone() {
    let source = Source::without_relay().await;
    source.append(1..=2).await;
    source.publish(&[1, 2]).await;
    source
        .publish_raw("sensors.v1.read.1", None, &reading(9))
        .await;
    source.stream.delete_message(3).await.expect("deleted");
    expect(&source, 2, 0, json!({"holes": 1})).await;
    source.stream.purge().await.expect("purged");
    let ended = source.tool(&["verify", "--wait=0"]).await;
    assert!(ended.stdout.contains("positions 1 to 2"), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_not_there_is_waited_for() {
    let source = Source::start().await;
    source.append(1..=40).await;
    expect(&source, 40, 0, json!({})).await;
    let client = async_nats::connect(source.broker.url())
        .await
        .expect("connect");
    let jetstream = async_nats::jetstream::new(client);
    jetstream.delete_stream("SENSORS").await.expect("deleted");
    expect(&source, 40, 0, json!({})).await;
    source.stop().await;
}

#[tokio::test]
async fn nothing_is_left_on_the_server() {
    let source = Source::start().await;
    source.append(1..=40).await;
    expect(&source, 40, 0, json!({})).await;
    eventually("the reader to be gone", async || {
        let names: Vec<_> = source.stream.consumer_names().collect().await;
        if names.is_empty() { Ok(()) } else { Err(names) }
    })
    .await;
    source.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_away_ends_with_4() {
    let mut broker = broker::Broker::start_in_temp().expect("start nats-server");
    broker.kill().expect("killed");
    for command in [
        &["verify"][..],
        &["rebuild", "purchases"],
        &["dead-letter", "list"],
    ] {
        let ended = tool(&broker, command).await;
        assert_eq!(ended.code, Some(4), "{ended:?}");
        let said = format!("headwater: NATS at {} cannot be reached", broker.url());
        assert!(ended.stderr.starts_with(&said), "{ended:?}");
        assert!(ended.stderr.contains("--server"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_source_that_is_away_ends_with_4_and_is_named() {
    let source = Source::silent().await;
    let ended = source.tool(&["verify", "--wait=0"]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let said = "NOT VERIFIED: the service sensors does not answer";
    assert!(ended.stdout.contains(said), "{ended:?}");
    source.stop().await;
}

#[tokio::test]
async fn a_source_that_does_not_exist_is_away() {
    let source = Source::start().await;
    let ended = source
        .tool(&["verify", "--wait=0", "--source=senors"])
        .await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stdout.contains("the service senors"), "{ended:?}");
    let ended = source.tool(&["verify", "--source=sensors"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    source.stop().await;
}
