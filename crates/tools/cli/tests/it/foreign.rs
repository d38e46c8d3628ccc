//! Events that no relay published, and how the commands report them.

use serde_json::{Value, json};

use crate::house::House;
use crate::source::{Source, reading};
use crate::status::{eventually_tool, eventually_well, shop};
use crate::tool::Ended;

/// The part of the status about the house's source.
fn sensors(status: &Value) -> &Value {
    &status["projections"][0]["sources"]["sensors"]
}

/// Checks that `status`, `doctor` and `verify` all report `why`.
async fn assert_none_is_well(source: &Source, why: &str) {
    for line in [&["status"][..], &["doctor"], &["verify", "--wait=1"]] {
        let is_reported = |ended: &Ended, _: &Value| ended.stdout.contains(why);
        let (ended, _) = eventually_tool(source, line, is_reported).await;
        assert_eq!(ended.code, Some(3), "{line:?}: {ended:?}");
    }
}

#[tokio::test]
async fn an_event_of_a_foreign_epoch_fails_status_doctor_and_verify() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let forged = Some("sensors.forged.1");
    source
        .publish_raw("sensors.v1.read.0", forged, &reading(1))
        .await;
    let is_seen = |_: &Ended, status: &Value| sensors(status)["foreign_epoch"] == 1;
    eventually_tool(&source, &["status"], is_seen).await;
    assert_none_is_well(&source, "of an epoch that sensors does not have").await;
    let ended = source.tool(&["status"]).await;
    assert!(
        ended.stdout.contains("1 FAULTS; 1 OF ANOTHER EPOCH"),
        "{ended:?}"
    );
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_projection_that_is_ahead_of_its_source_fails_status_doctor_and_verify() {
    let source = Source::without_relay().await;
    let house = House::open(&source, true).await;
    source.append(1..=2).await;
    source.publish(&[1, 2, 3]).await;
    let is_ahead = |_: &Ended, status: &Value| sensors(status)["position"] == 3;
    eventually_tool(&source, &["status"], is_ahead).await;
    assert_none_is_well(&source, "ahead of sensors").await;
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_projection_that_waits_for_an_upgrade_is_reported_by_status_and_doctor() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let newer = reading(5);
    source.publish_raw("sensors.v2.read.0", None, &newer).await;
    let why = "sensors.v2.read is newer than this service knows: upgrade house";
    for line in [&["status"][..], &["doctor"]] {
        let is_reported = |ended: &Ended, _: &Value| ended.stdout.contains(why);
        eventually_tool(&source, line, is_reported).await;
    }
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn events_by_hand_are_counted_and_are_no_trouble() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    source
        .publish_raw("sensors.v1.read.0", None, &reading(777))
        .await;
    let is_counted = |_: &Ended, status: &Value| sensors(status)["by_hand"] == 1;
    let (ended, status) = eventually_tool(&source, &["status"], is_counted).await;
    assert_eq!((ended.code, &status["troubles"]), (Some(0), &json!([])));
    let ended = source.tool(&["status"]).await;
    assert!(ended.stdout.contains("1 by hand"), "{ended:?}");
    house.close().await;
    source.stop().await;
}
