//! `headwater projection` against a read store.

use serde_json::Value;

use crate::house::House;
use crate::source::{Source, eventually};
use crate::status::{eventually_tool, eventually_well, shop};
use crate::tool::Ended;

#[tokio::test]
async fn projections_are_listed_with_their_sources() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let ended = source.tool(&["projection", "list", "-ojson"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let listed: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(
        (&listed[0]["name"], &listed[0]["service"]),
        (&"readings".into(), &"house".into())
    );
    assert_eq!(listed[0]["sources"]["sensors"]["position"], 30);
    let ended = source.tool(&["projection", "list"]).await;
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("PROJECTION  SERVICE"), "{ended:?}");
    assert!(
        lines[1].starts_with("readings    house    sensors  30"),
        "{ended:?}"
    );
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_projection_is_paused_and_goes_on_where_it_was() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let line = [
        "projection",
        "pause",
        "readings",
        "--reason=repair the sensor",
    ];
    let ended = source.tool(&line).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "readings of house is paused at sensors:30 since 20";
    assert!(ended.stdout.starts_with(said), "{ended:?}");
    source.append(31..=33).await;
    for command in [
        &["rebuild", "house"][..],
        &["projection", "rebuild", "readings"],
    ] {
        let ended = source.tool(command).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("readings is paused"), "{ended:?}");
    }

    let ended = source.tool(&["projection", "resume", "readings"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "readings of house resumes at sensors:30\n");
    let is_there = |_: &Ended, status: &Value| {
        status["projections"][0]["sources"]["sensors"]["position"] == 33
    };
    eventually_tool(&source, &["status"], is_there).await;
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_projection_is_rebuilt_by_its_name() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let ended = source.tool(&["projection", "rebuild", "readings"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .starts_with("readings is rebuilt, at sensors:30"),
        "{ended:?}"
    );
    assert_eq!(
        ended.stderr,
        "headwater: the rebuild of readings of house has begun\n"
    );
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_projection_that_is_not_there_is_said_with_those_that_are() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let ended = source.tool(&["projection", "resume", "reading"]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("there is no projection reading; there are: readings"),
        "{ended:?}"
    );
    let ended = source.tool(&["projection", "pause", "readings"]).await;
    assert_eq!(ended.code, Some(2), "a reason is wanted: {ended:?}");
    house.close().await;
    eventually("the service to be gone", async || {
        let ended = source.tool(&["projection", "resume", "readings"]).await;
        if ended.code == Some(4) {
            Ok(())
        } else {
            Err(ended)
        }
    })
    .await;
    source.stop().await;
}

#[tokio::test]
async fn a_source_has_no_projections_to_list() {
    let source = Source::start().await;
    let ended = source.tool(&["projection", "list"]).await;
    assert_eq!(
        (ended.code, &*ended.stdout),
        (Some(0), "there are none\n"),
        "{ended:?}"
    );
    source.stop().await;
}

/// A pause survives a restart of the service.
#[tokio::test]
async fn a_pause_is_shown_after_a_restart_of_the_service() {
    let (source, house) = shop().await;
    eventually_well(&source).await;
    let line = ["projection", "pause", "readings", "--reason=over night"];
    assert_eq!(source.tool(&line).await.code, Some(0));
    let house: House = house.restart(&source).await;
    let is_paused =
        |_: &Ended, status: &Value| status["projections"][0]["paused"]["reason"] == "over night";
    eventually_tool(&source, &["status"], is_paused).await;
    house.close().await;
    source.stop().await;
}
