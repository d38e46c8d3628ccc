//! Personal fields.

use super::{Console, hears};
use crate::house::House;
use crate::source::{PERSONAL, Source};

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
