//! `headwater doctor`: findings and advice.

use serde_json::Value;

use crate::locked::Locked;
use crate::provision::PLAN;
use crate::source::{Source, eventually, tool};
use crate::status::{eventually_tool, eventually_well, shop};
use crate::tool::{self, Ended};

/// The grades of the findings of `check`, and their whole text.
fn found(report: &Value, check: &str) -> (Vec<String>, String) {
    let findings = report["findings"].as_array().expect("findings").iter();
    let of_check: Vec<&Value> = findings.filter(|found| found["check"] == check).collect();
    let grades = of_check
        .iter()
        .map(|found| found["grade"].as_str().expect("a grade").to_owned());
    let said: Vec<String> = of_check.iter().map(ToString::to_string).collect();
    (grades.collect(), said.join("\n"))
}

#[track_caller]
fn assert_found(report: &Value, check: &str, grade: &str, said: &str) {
    let (grades, all) = found(report, check);
    assert!(grades.iter().any(|found| found == grade), "{check}: {all}");
    assert!(all.contains(said), "{check}: {all}");
}

#[tokio::test]
async fn a_shop_that_is_well_passes_every_check_in_order() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let is_well = |ended: &Ended, _: &Value| ended.code == Some(0);
    let (_, report) = eventually_tool(&source, &["doctor"], is_well).await;
    let findings = report["findings"].as_array().expect("findings").iter();
    let mut checks: Vec<&str> = findings
        .map(|found| found["check"].as_str().expect("a name"))
        .collect();
    checks.dedup();
    let order = [
        "configured",
        "broker",
        "version",
        "jetstream",
        "sync",
        "clock",
        "streams",
        "replicas",
        "services",
        "relays",
        "positions",
        "consumers",
        "projections",
        "dead letters",
    ];
    assert_eq!(checks, order);
    for check in [
        "broker",
        "version",
        "jetstream",
        "clock",
        "replicas",
        "services",
        "relays",
        "positions",
        "consumers",
        "projections",
        "dead letters",
    ] {
        assert_found(&report, check, "ok", "");
    }
    assert_found(&report, "sync", "unknown", "system account");
    // The test's stream allows events to be deleted.
    assert_found(&report, "streams", "warn", "deny delete is false, not true");
    assert_found(
        &report,
        "streams",
        "warn",
        "headwater provision sensors --dry-run",
    );
    let ended = source.tool(&["doctor"]).await;
    assert!(
        ended.stdout.ends_with("0 failed, 1 to look at\n"),
        "{ended:?}"
    );
    assert!(
        ended
            .stdout
            .contains("\nok    version       nats-server 2."),
        "{ended:?}"
    );
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_away_is_said_with_what_to_do() {
    let mut broker = broker::Broker::start_in_temp().expect("start nats-server");
    broker.kill().expect("killed");
    let ended = tool(&broker, &["doctor", "-ojson"]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_found(&report, "configured", "ok", &broker.url());
    assert_found(&report, "broker", "fail", "start it");
    let ended = tool(&broker, &["doctor", "--context=none", "-ojson"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_found(&report, "configured", "fail", "--no-context");
}

#[tokio::test]
async fn a_refused_login_and_a_server_without_jetstream_are_told_apart() {
    let locked = Locked::start("authorization { token: s3cret }").await;
    let server = format!("--server=127.0.0.1:{}", locked.port);
    let ended = tool::start(&["doctor", &server], &[]).end().await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stdout.contains("-> log in with"), "{ended:?}");
    let accounts = "accounts { A { users: [{ user: a, password: a }] } }";
    let locked = Locked::start(accounts).await;
    let server = format!("--server=nats://a:a@127.0.0.1:{}", locked.port);
    let ended = tool::start(&["doctor", &server], &[]).end().await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("FAIL  jetstream"), "{ended:?}");
}

#[tokio::test]
async fn the_system_account_is_told_how_acknowledged_events_reach_the_disk() {
    for (jetstream, said) in [
        ("", "warn  sync          sync_interval is 120s"),
        (
            "jetstream { sync_interval: always }",
            "ok    sync          sync_interval is always",
        ),
    ] {
        let accounts = "accounts { S { users: [{ user: s, password: s }] } }\nsystem_account: S";
        let locked = Locked::start(&format!("{accounts}\n{jetstream}")).await;
        let server = format!("--server=nats://s:s@127.0.0.1:{}", locked.port);
        let ended = tool::start(&["doctor", &server], &[]).end().await;
        assert!(ended.stdout.contains(said), "{ended:?}");
    }
}

#[tokio::test]
async fn an_empty_broker_has_no_streams_and_is_told_how_to_get_them() {
    let broker = broker::Broker::start_in_temp().expect("start nats-server");
    let doctor = async |plan: &[&str]| {
        let ended = tool(&broker, &[&["doctor", "-ojson"], plan].concat()).await;
        assert_eq!(ended.code, Some(3), "{ended:?}");
        serde_json::from_str::<Value>(&ended.stdout).expect("JSON")
    };
    let report = doctor(&[]).await;
    assert_found(
        &report,
        "streams",
        "fail",
        "headwater provision --plan FILE",
    );
    let report = doctor(&[PLAN]).await;
    let said = "headwater provision orders products users";
    assert_found(&report, "streams", "fail", said);
    assert_found(&report, "services", "fail", "the service orders does not");
}

#[tokio::test]
async fn a_stream_that_is_ahead_of_its_outbox_is_found() {
    let source = Source::without_relay().await;
    source.append(1..=2).await;
    source.publish(&[1, 2, 3]).await;
    let is_found = |ended: &Ended, _: &Value| ended.stdout.contains("is ahead");
    let (ended, report) = eventually_tool(&source, &["doctor"], is_found).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_found(
        &report,
        "positions",
        "fail",
        "it ends with 3, the outbox with 2",
    );
    source.stop().await;
}

#[tokio::test]
async fn an_outbox_that_does_not_drain_and_a_hole_are_found() {
    let source = Source::without_relay().await;
    source.append(1..=9).await;
    source.publish(&[1, 2, 3, 4]).await;
    source.stream.delete_message(2).await.expect("deleted");
    let line = ["doctor", "--max-lag=0"];
    let is_found = |ended: &Ended, _: &Value| ended.stdout.contains("5 events wait");
    let (ended, report) = eventually_tool(&source, &line, is_found).await;
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_found(
        &report,
        "relays",
        "fail",
        "sensors: 5 events wait, the oldest for",
    );
    assert_found(&report, "positions", "ok", "sensors 4 of 9");
    assert_found(&report, "streams", "warn", "1 sequences have no event");
    source.stop().await;
}

#[tokio::test]
async fn a_pause_a_missing_consumer_and_a_missing_service_are_found() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let pause = ["projection", "pause", "readings", "--reason=a look"];
    assert_eq!(source.tool(&pause).await.code, Some(0));
    let ended = source.tool(&["doctor", "-ojson"]).await;
    assert_eq!(ended.code, Some(0), "it is no failure: {ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_found(
        &report,
        "projections",
        "warn",
        "headwater projection resume readings",
    );
    house.close().await;
    let is_gone = |ended: &Ended, _: &Value| ended.code == Some(3);
    let (_, report) = eventually_tool(&source, &["doctor"], is_gone).await;
    assert_found(&report, "services", "fail", "the projection readings");
    source.stop().await;
}

#[tokio::test]
async fn dead_letters_are_found_with_the_command_that_lists_them() {
    let source = Source::start().await;
    let house = crate::house::House::open(&source, false).await;
    source.append(1..=10).await;
    eventually("dead letters", async || {
        let ended = source.tool(&["doctor", "-ojson"]).await;
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        let said = report.to_string();
        if said.contains("headwater dead-letter list --service house") {
            Ok(())
        } else {
            Err(said)
        }
    })
    .await;
    house.close().await;
    source.stop().await;
}
