//! Dead letters.

use reqwest::StatusCode;

use super::{Console, status};
use crate::house::House;
use crate::source::{PROTO, SensorRead, Source};

#[tokio::test]
async fn dead_letters_are_retried_and_discarded_after_a_confirmation() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, false).await;
    source.append(1..=10).await;
    let console = Console::as_operator(&source).await;
    console.shows("/dead-letters", &["house: 2"]).await;
    for place in 1..=3 {
        let junk = SensorRead {
            sensor: format!("junk {place}"),
            value: 2,
        };
        let subject = headwater::subject_of(&junk);
        source.publish_raw(&subject, None, &junk).await;
    }
    let listed = [
        "two is too many",
        "1 wait behind it",
        "key junk 3",
        "house: 5",
    ];
    console.shows("/dead-letters", &listed).await;
    let text = console
        .shows("/dead-letters?lane=key+junk+2", &["house: 1"])
        .await;
    assert!(!text.contains("key junk 3"));
    let short = "/dead-letters?lane=junk+2";
    let text = console.shows(short, &["house: 1"]).await;
    assert!(!text.contains("key junk 3"));
    let letter = [
        "sensor 2",
        "two is too many",
        "What waits behind it: 1",
        "house:2",
    ];
    console.shows("/dead-letters/house/1", &letter).await;
    let first = ["waits behind", "href=\"/dead-letters/house/1\""];
    console.shows("/dead-letters/house/2", &first).await;

    let (confirm, ended) = console.does("verb=retry&pick=house:1", "").await;
    let consequence = "regardless of what was delivered";
    assert!(
        confirm.contains(consequence),
        "as the command line says it: {confirm}"
    );
    assert!(
        ended.contains("0 applied, 1 failed again, 5 left"),
        "{ended}"
    );

    let two = "verb=discard&pick=house:3&pick=house:4";
    let (_, confirm) = console.page(&format!("/confirm?{two}")).await;
    let said = "2 dead letters to discard:";
    assert!(
        confirm.contains(said) && confirm.contains("cannot be undone"),
        "{confirm}"
    );
    let refused = console.post("/actions", two.to_owned());
    assert_eq!(status(refused).await, StatusCode::UNPROCESSABLE_ENTITY);
    let (_, ended) = console.does(two, "junk%20%3Cb%3E").await;
    assert!(ended.contains("house: 2 discarded"), "{ended}");
    let reason = "Discarded: junk &#60;b&#62;";
    console
        .shows("/dead-letters?show=discarded", &["house: 2", reason])
        .await;

    let (confirm, ended) = console.does("verb=discard&pick=house:5", "junk").await;
    let said = "discard the dead letter 5 of house for good";
    assert!(
        confirm.contains(said),
        "as the command line asks: {confirm}"
    );
    assert!(ended.contains("discarded 5"), "{ended}");
    house.fix();
    let (_, ended) = console.does("verb=retry&pick=house:1", "").await;
    assert!(
        ended.contains("2 applied, 0 failed again, 0 left"),
        "{ended}"
    );
    console.shows("/dead-letters", &["There are none"]).await;

    let log = console.log();
    let outcomes: Vec<&str> = log.iter().map(|(_, outcome)| &**outcome).collect();
    assert_eq!(outcomes.len(), 8, "each begins and ends: {log:?}");
    assert_eq!(
        log[2].0,
        "discard 2 dead letters: house:3, house:4; reason: junk <b>"
    );
    assert_eq!(
        (
            outcomes[2],
            outcomes[3].starts_with("done: house: 2 discarded")
        ),
        ("begun", true)
    );
    console
        .shows(
            "/log",
            &["discard 2 dead letters: house:3, house:4; reason: junk &#60;b&#62;"],
        )
        .await;
    house.close().await;
    console.close().await;
    source.stop().await;
}

#[tokio::test]
async fn all_letters_that_match_are_chosen_as_they_are_now() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, false).await;
    source.append(1..=10).await;
    let console = Console::as_operator(&source).await;
    console.shows("/dead-letters", &["house: 2"]).await;
    let junk = SensorRead {
        sensor: "junk".to_owned(),
        value: 2,
    };
    let subject = headwater::subject_of(&junk);
    source.publish_raw(&subject, None, &junk).await;
    let all = "Discard all of house that match";
    console.shows("/dead-letters", &["house: 3", all]).await;
    let all = "/confirm?verb=discard&all=1&service=house";
    let (_, confirm) = console.page(&format!("{all}&error=two+is")).await;
    for picked in ["house:1", "house:3"] {
        let field = format!("name=\"pick\" value=\"{picked}\"");
        assert!(confirm.contains(&field), "{picked} is not in {confirm}");
    }
    assert!(!confirm.contains("house:2"), "it waits: {confirm}");
    let (status, _) = console.page(&format!("{all}&error=none")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    house.close().await;
    console.close().await;
    source.stop().await;
}
