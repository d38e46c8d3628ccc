//! What one event did to the rows of a projection, in the console and on the command line.

use reqwest::StatusCode;

use super::Console;
use crate::house::House;
use crate::source::{PERSONAL, PROTO, Source};

const REPLAY: &str = "verb=replay&service=house&projection=readings&event=sensors:3";

#[tokio::test]
async fn an_event_has_the_time_of_its_application_and_its_rows_before_and_after() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, true).await;
    source.append(1..=3).await;
    source.published(3).await;
    let console = Console::as_operator(&source).await;
    let link = format!(
        "/confirm?{}",
        REPLAY.replace('&', "&#38;").replace(':', "%3A")
    );
    let text = console
        .shows("/events/sensors:3", &["after it was stored", &link])
        .await;
    assert!(text.contains("applied 20"), "{text}");
    let (confirm, ended) = console.does(REPLAY, "").await;
    assert!(confirm.contains("on a temporary copy"), "{confirm}");
    for shown in [
        "sensors:3 changes one row of readings",
        "added",
        "<th scope=\"row\">sensor</th><td class=\"id\"></td><td class=\"id\">sensor 3</td>",
    ] {
        assert!(ended.contains(shown), "{shown} is not in {ended}");
    }
    let by_sequence = REPLAY.replace(':', "@");
    let (_, ended) = console.does(&by_sequence, "").await;
    assert!(ended.contains("sensors@3 changes one row"), "{ended}");
    let missing = REPLAY.replace(":3", ":9");
    let (_, ended) = console.does(&missing, "").await;
    assert!(ended.contains("is not in the stream of sensors"), "{ended}");
    console.close().await;

    let viewer = Console::start(&source, &[], &[]).await;
    let text = viewer.shows("/events/sensors:3", &["after it was"]).await;
    assert!(!text.contains("verb=replay"), "{text}");
    let (status, _) = viewer.page(&format!("/confirm?{REPLAY}")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    viewer.close().await;

    let told = source
        .tool(&["projection", "replay", "readings", "sensors:3"])
        .await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let rows = "sensors:3 changes one row of readings\n  reading, added: value=3 sensor=sensor 3\n";
    assert_eq!(told.stdout, rows);
    house.close().await;
    source.stop().await;
}

#[tokio::test]
async fn rows_of_personal_events_are_masked_until_asked_for_and_never_logged() {
    let mut source = Source::start().await;
    source.describe(PERSONAL).await;
    let house = House::open(&source, true).await;
    source.append(1..=3).await;
    source.published(3).await;
    let console = Console::as_operator(&source).await;
    let (_, ended) = console.does(REPLAY, "").await;
    assert!(
        ended.contains("(personal)") && !ended.contains("sensor 3"),
        "{ended}"
    );
    console
        .shows(
            "/actions/1?personal=shown",
            &["sensor 3", "Mask the values"],
        )
        .await;
    let log = console.log();
    let last = log.last().expect("an entry");
    assert_eq!(last.0, "personal fields at /actions/1?personal=shown");
    let quotes = |(what, outcome): &(String, String)| {
        what.contains("sensor 3") || outcome.contains("sensor 3")
    };
    assert!(!log.iter().any(quotes), "{log:?}");
    console.close().await;
    house.close().await;
    source.stop().await;
}
