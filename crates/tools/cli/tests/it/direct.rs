//! A user who may only read can read streams, because no consumer is needed.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{self, Config};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::source::{PROTO, Source, VIEWER, eventually, reading};
use crate::status::{eventually_well, shop};

/// The number of events of the source.
const LAST: u64 = 40;

async fn filled() -> Source {
    let source = Source::start().await;
    source.append(1..=LAST).await;
    source.published(LAST).await;
    source
}

/// The positions that `tail` prints.
async fn tailed(source: &Source, who: &[(&str, &str)], args: &[&str]) -> Vec<u64> {
    let line = [&["tail", "--no-follow", "--output=json"], args].concat();
    let ended = source.tool_with(who, &line).await;
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{args:?}");
    let lines = ended.stdout.lines();
    let events = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    events
        .map(|event| event["position"].as_u64().expect("a position"))
        .collect()
}

/// Checks that `tail` and `verify` read all events.
async fn reads_all(source: &Source, who: &[(&str, &str)]) {
    let read = tailed(source, who, &["--from=1"]).await;
    assert_eq!(read, (1..=LAST).collect::<Vec<_>>());
    let ended = source.tool_with(who, &["verify"]).await;
    let said =
        format!("sensors: the stream agrees with the outbox at {LAST}, {LAST} events\nall agree\n");
    assert_eq!((ended.stdout, &*ended.stderr), (said, ""));
}

#[tokio::test]
async fn a_user_who_may_change_nothing_reads_everything() {
    let (mut source, house) = shop().await;
    source.describe(PROTO).await;
    eventually_well(&source).await;
    let all: Vec<u64> = (1..=30).collect();
    for (args, wanted) in [
        (&["--last=3"][..], &all[27..]),
        (&["--since=1h"], &all),
        (&["sensors.v1.read", "--from=29"], &all[28..]),
        (&["--key=sensor 1", "--last=2"], &[22, 29]),
    ] {
        assert_eq!(tailed(&source, &VIEWER, args).await, wanted, "{args:?}");
    }
    for (args, said) in [
        (&["verify"][..], "all agree"),
        (&["status"], "readings"),
        (&["check"], "OK"),
        (&["doctor"], "0 failed"),
        (&["decode", "--subject=sensors.v1.read"], "\"sensor\""),
        (&["dead-letter", "list"], "none"),
        (&["dead-letter", "discarded"], "none"),
    ] {
        let ended = source.tool_with(&VIEWER, args).await;
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{args:?}");
        assert!(ended.stdout.contains(said), "{args:?}: {ended:?}");
    }
    house.close().await;
    source.stop().await;
}

/// A JetStream API that forwards direct gets to `direct_get`; returns the environment to use it.
async fn api_with(
    source: &Source,
    direct_get: &'static str,
) -> (JoinSet<()>, TempDir, [(&'static str, String); 3]) {
    let client = async_nats::connect(source.broker.url()).await;
    let client = client.expect("connect");
    let asked = client.subscribe("COPY.API.>").await;
    let mut asked = asked.expect("subscribe");
    client.flush().await.expect("flush");
    let mut answers = JoinSet::new();
    answers.spawn(async move {
        while let Some(request) = asked.next().await {
            let subject = match request.subject.strip_prefix("COPY.API.") {
                Some("DIRECT.GET.SENSORS") => direct_get.to_owned(),
                other => format!("$JS.API.{}", other.expect("the API")),
            };
            let reply = request.reply.expect("a request");
            let sent = client.publish_with_reply(subject, reply, request.payload);
            sent.await.expect("sent");
        }
    });
    let home = tempfile::tempdir().expect("a folder");
    let contexts = home.path().join("nats").join("context");
    std::fs::create_dir_all(&contexts).expect("make a folder");
    let context = r#"{"jetstream_api_prefix": "COPY.API"}"#;
    std::fs::write(contexts.join("copy.json"), context).expect("write");
    let environment = [
        ("XDG_CONFIG_HOME", home.path().display().to_string()),
        ("NATS_CONTEXT", "copy".to_owned()),
        ("NATS_TIMEOUT", "2s".to_owned()),
    ];
    (answers, home, environment)
}

/// Checks that both commands read all events through such an API.
async fn reads_all_by(source: &Source, direct_get: &'static str) {
    let (_answers, _home, environment) = api_with(source, direct_get).await;
    let who = environment
        .each_ref()
        .map(|(name, value)| (*name, &**value));
    reads_all(source, &who).await;
}

#[tokio::test]
async fn a_copy_that_is_behind_is_not_taken_for_the_stream() {
    let source = filled().await;
    let behind = Config {
        name: "BEHIND".to_owned(),
        allow_direct: true,
        mirror: Some(stream::Source {
            name: "SENSORS".to_owned(),
            ..stream::Source::default()
        }),
        ..Config::default()
    };
    let jetstream = source.stream_of(behind).await;
    let behind = jetstream.get_stream("BEHIND").await.expect("the copy");
    eventually("the copy", async || {
        let info = behind.get_info().await.expect("its state");
        let last = info.state.last_sequence;
        if last == LAST { Ok(()) } else { Err(last) }
    })
    .await;
    for sequence in 11..=LAST {
        behind.delete_message(sequence).await.expect("deleted");
    }
    reads_all_by(&source, "$JS.API.DIRECT.GET.BEHIND").await;
    source.stop().await;
}

/// Of each page, the second event and everything after the third are lost.
#[tokio::test]
async fn an_event_that_is_lost_on_the_way_is_asked_for_again() {
    let source = filled().await;
    let client = async_nats::connect(source.broker.url()).await;
    let client = client.expect("connect");
    let mut asked = client.subscribe("LOSSY").await.expect("subscribe");
    client.flush().await.expect("flush");
    let mut lossy = JoinSet::new();
    lossy.spawn(async move {
        while let Some(request) = asked.next().await {
            let inbox = client.new_inbox();
            let page = client.subscribe(inbox.clone()).await;
            let mut page = page.expect("subscribe").take(3).enumerate();
            let subject = "$JS.API.DIRECT.GET.SENSORS";
            let sent = client.publish_with_reply(subject, inbox, request.payload);
            sent.await.expect("sent");
            let reply = request.reply.expect("a request");
            while let Some((nth, answer)) = page.next().await {
                if answer.status.is_some() {
                    break;
                }
                if nth != 1 {
                    let headers = answer.headers.expect("headers");
                    let sent = client.publish_with_headers(reply.clone(), headers, answer.payload);
                    sent.await.expect("sent");
                }
            }
        }
    });
    reads_all_by(&source, "LOSSY").await;
    source.stop().await;
}

/// An event without a partition was published by hand.
#[tokio::test]
async fn events_of_several_filters_come_in_the_order_of_the_stream() {
    let source = Source::start().await;
    for position in 1..=5 {
        source.append(position..=position).await;
        source.published(2 * position - 1).await;
        let by_hand = reading(100 + position);
        source.publish_raw("sensors.v1.read", None, &by_hand).await;
    }
    let args = ["tail", "sensors.v1.read", "--last=7"];
    let line = [&args[..], &["--no-follow", "--output=json"]].concat();
    let ended = source.tool_with(&VIEWER, &line).await;
    let lines = ended.stdout.lines();
    let events = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let sequences: Vec<_> = events.map(|event| event["sequence"].as_u64()).collect();
    assert_eq!(sequences, (4..=10).map(Some).collect::<Vec<_>>());
    source.stop().await;
}

#[tokio::test]
async fn a_stream_that_allows_no_direct_gets_is_read_from_its_leader() {
    let source = filled().await;
    source
        .change_stream(Config {
            allow_direct: false,
            deny_delete: false,
            deny_purge: false,
            ..headwater::stream::settings("sensors", 1)
        })
        .await;
    reads_all(&source, &VIEWER).await;
    source.stop().await;
}

/// The server appends its own headers to those of the event.
#[tokio::test]
async fn headers_of_an_event_do_not_pass_for_those_of_the_server() {
    let source = Source::start().await;
    source.append(1..=1).await;
    source.published(1).await;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Sequence", "17");
    headers.insert("Nats-Subject", "sensors.v1.forged.5");
    headers.insert("Nats-Time-Stamp", "2001-01-01T00:00:00Z");
    headers.insert("Nats-Last-Sequence", "3");
    source
        .publish_with("sensors.v1.read.5", headers, &reading(7))
        .await;
    source.append(2..=2).await;
    source.published(3).await;
    let ended = source.tool(&["tail", "--no-follow", "--output=json"]).await;
    let events: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(events.len(), 3, "{ended:?}");
    assert_eq!(events[1]["subject"], "sensors.v1.read.5");
    assert_eq!(events[1]["sequence"], 2);
    assert!(events[1]["time"].as_str() > events[0]["time"].as_str());
    let (code, report) = source.verify().await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["sources"][0]["by_hand"], json!(1));
    source.stop().await;
}
