//! Personal fields.

use reqwest::StatusCode;

use super::{Console, hears};
use crate::house::{House, QUOTED};
use crate::source::{PERSONAL, SensorRead, Source};

#[tokio::test]
async fn personal_fields_are_masked_unless_asked_for_which_is_logged() {
    let mut source = Source::start().await;
    source.describe(PERSONAL).await;
    let house = House::open(&source, false).await;
    let console = Console::as_operator(&source).await;
    source.append(1..=10).await;
    source.published(10).await;
    let pages = [
        "/events",
        "/events/sensors:3",
        "/dead-letters",
        "/dead-letters/house/1",
        "/confirm?verb=retry&pick=house:1",
        "/confirm?verb=discard&pick=house:1",
    ];
    for path in pages {
        let text = console.shows(path, &["(personal)"]).await;
        assert!(
            !text.contains("sensor 2") && !text.contains("sensor 3"),
            "{path}: {text}"
        );
    }
    let text = console
        .shows("/events?text=sensor+3", &["No stored event"])
        .await;
    assert!(
        !text.contains("sensors:3"),
        "a search does not reveal it: {text}"
    );
    let stream = console.get("/live/events?after=sensors%3A5").send().await;
    let heard = hears(stream.expect("an answer"), "sensors:10").await;
    assert!(
        heard.contains("(personal)") && !heard.contains("sensor 3"),
        "{heard}"
    );
    let (_, ended) = console.does("verb=retry&pick=house:1", "").await;
    assert!(
        ended.contains("1 failed again") && !ended.contains("sensor 2"),
        "{ended}"
    );
    assert!(
        !console
            .log()
            .iter()
            .any(|(what, _)| what.contains("personal"))
    );
    for path in &pages[..4] {
        let shown = format!("{path}?personal=shown");
        console.shows(&shown, &["sensor ", "is logged"]).await;
    }
    let shown = console.log();
    let wanted = (
        "personal fields at /events?personal=shown".to_owned(),
        "shown".to_owned(),
    );
    assert!(shown.contains(&wanted), "{shown:?}");
    let shown = shown.iter().filter(|(_, outcome)| outcome == "shown");
    assert_eq!(shown.count(), 4);
    house.close().await;
    console.close().await;
    source.stop().await;
}

/// Publishes an event whose dead letter quotes its sensor.
async fn quoted(source: &Source, sensor: &str) {
    let event = SensorRead {
        sensor: sensor.to_owned(),
        value: QUOTED,
    };
    let subject = headwater::subject_of(&event);
    source.publish_raw(&subject, None, &event).await;
}

/// In any form: as it is, as a word of others, escaped.
#[tokio::test]
async fn what_a_reason_quotes_of_personal_fields_is_masked() {
    let mut source = Source::start().await;
    source.describe(PERSONAL).await;
    let house = House::open(&source, false).await;
    let console = Console::as_operator(&source).await;
    let hostile = "O'Brien \"von\tLovelace\"";
    for sensor in ["long", "a", hostile] {
        quoted(&source, sensor).await;
    }
    console.shows("/dead-letters", &["house: 3"]).await;
    for id in 1..=3 {
        for path in [
            "/dead-letters".to_owned(),
            format!("/dead-letters/house/{id}"),
            format!("/events/sensors@{id}"),
            format!("/confirm?verb=retry&pick=house:{id}"),
            format!("/confirm?verb=discard&pick=house:{id}"),
        ] {
            let text = console.shows(&path, &["(personal)"]).await;
            let contents = ["Brien", "Lovelace", "&#34;long", "&#34;a&#34;"];
            let found = contents.iter().find(|content| text.contains(**content));
            assert_eq!(found, None, "{path}: {text}");
        }
        let query = format!("verb=retry&pick=house:{id}");
        let (_, ended) = console.does(&query, "").await;
        assert!(ended.contains("(personal)"), "{ended}");
        assert!(!ended.contains("Lovelace"), "{ended}");
    }
    let all = "/confirm?verb=discard&all=1&service=house";
    let confirm = console.shows(all, &["(personal)"]).await;
    assert!(!confirm.contains("Lovelace"), "{confirm}");

    // A search does not reveal it, except to whom it is shown.
    for path in [
        "/dead-letters?error=Lovelace",
        "/dead-letters?error=%22a%22",
    ] {
        console.shows(path, &["There are none", "Show them"]).await;
        let shown = format!("{path}&personal=shown");
        console.shows(&shown, &["house: 1", "is logged"]).await;
    }
    let (status, _) = console.page(&format!("{all}&error=Lovelace")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let shown = format!("{all}&error=Lovelace&personal=shown");
    console.shows(&shown, &["house:3"]).await;

    let (_, ended) = console.does("verb=discard&pick=house:3", "junk").await;
    assert!(ended.contains("discarded 3"), "{ended}");
    let discarded = "/dead-letters?show=discarded";
    let text = console.shows(discarded, &["<td>(personal)<br>"]).await;
    assert!(!text.contains("Lovelace"), "{text}");
    let shown = format!("{discarded}&personal=shown");
    console.shows(&shown, &["Lovelace", "is logged"]).await;
    console
        .shows("/dead-letters/house/1?personal=shown", &["&#34;long&#34;"])
        .await;
    console
        .shows("/events/sensors@1?personal=shown", &["&#34;long&#34;"])
        .await;
    for (what, outcome) in console.log() {
        let is_search = what.starts_with("personal fields at ");
        assert!(is_search || !what.contains("Lovelace"), "{what}");
        assert!(!outcome.contains("Lovelace"), "{what}: {outcome}");
    }
    house.close().await;
    console.close().await;
    source.stop().await;
}

#[tokio::test]
async fn the_result_of_a_verification_has_no_content_and_neither_has_the_log() {
    let mut source = Source::without_relay().await;
    source.describe(PERSONAL).await;
    let house = House::open(&source, true).await;
    source.append(1..=5).await;
    let altered = SensorRead {
        sensor: "Ada Lovelace".to_owned(),
        value: 3,
    };
    source.publish(&[1, 2]).await;
    source.publish_as(3, &altered).await;
    source.publish(&[4, 5]).await;
    house.stores(&[1, 2, 3, 4, 5]).await;
    let console = Console::as_operator(&source).await;
    let (_, ended) = console.does("verb=verify", "").await;
    for found in ["altered: 1", "rows: 2", "sensor=(personal)"] {
        assert!(ended.contains(found), "{found} is not in {ended}");
    }
    let (_, outcome) = console.log().pop().expect("an entry");
    for content in ["Ada", "sensor 3"] {
        assert!(!ended.contains(content), "{ended}");
        assert!(!outcome.contains(content), "{outcome}");
    }
    house.close().await;
    console.close().await;
    source.stop().await;
}
