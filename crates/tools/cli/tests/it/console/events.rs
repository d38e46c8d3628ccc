//! Events: the list, new ones, and one of them from the outbox to the projections.

use reqwest::StatusCode;

use super::{Console, hears};
use crate::house::House;
use crate::source::{PROTO, SensorRead, Source};

#[tokio::test]
async fn events_are_listed_filtered_and_followed() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let console = Console::start(&source, &[], &[]).await;
    source.append(1..=300).await;
    source.published(300).await;
    let text = console
        .shows("/events", &["sensors:300", "sensors:201"])
        .await;
    assert!(!text.contains(">sensors:200<"), "a page has 100");
    let text = console
        .shows(
            "/events?source=sensors&before=201",
            &["sensors:200", "sensors:101"],
        )
        .await;
    assert!(!text.contains(">sensors:201<") && !text.contains(">sensors:100<"));
    let key = "/events?key=sensor+1";
    let text = console.shows(key, &["sensors:295", "sensors:1<"]).await;
    assert!(!text.contains(">sensors:300<"));
    let text = console
        .shows("/events?text=%22299%22&type=read", &["sensors:299"])
        .await;
    assert!(!text.contains(">sensors:298<"));
    let text = console
        .shows("/events?text=nothing", &["No stored event matches"])
        .await;
    let (_, live) = text.split_once("data-live=\"").expect("a stream");
    let live = live
        .split_once('"')
        .expect("a value")
        .0
        .replace("&#38;", "&")
        .replace("&amp;", "&");
    assert!(
        live.contains("text=nothing") && live.contains("after=sensors%3A300"),
        "{live}"
    );

    let live = "/live/events?key=sensor+1&after=sensors%3A300";
    let stream = console.get(live).send().await.expect("an answer");
    source.append(301..=310).await;
    let heard = hears(stream, "sensors:309").await;
    assert!(
        heard.contains("sensors:302") && !heard.contains("sensors:303"),
        "{heard}"
    );
    assert!(heard.contains("id: sensors:309"), "{heard}");
    // A browser that comes back has not missed anything.
    let again = console.get(live).header("Last-Event-ID", "sensors:302");
    let heard = hears(again.send().await.expect("an answer"), "sensors:309").await;
    assert!(!heard.contains("sensors:302<"), "{heard}");
    for wrong in ["type=a..b", "source=gauges&type=sensors.v1.read"] {
        let (status, text) = console.page(&format!("/events?{wrong}")).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{text}");
    }
    console.close().await;
    source.stop().await;
}

#[tokio::test]
async fn one_event_is_followed_from_the_outbox_to_each_projection() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, false).await;
    let console = Console::start(&source, &[], &[]).await;
    source.append(1..=10).await;
    source.published(10).await;
    let applied = [
        "sensor 3",
        "sensors:3",
        "3 of SENSORS",
        "Nats-Msg-Id",
        "applied",
        "readings",
    ];
    console.shows("/events/sensors:3", &applied).await;
    let letter = "dead letter: two is too many";
    console
        .shows("/events/sensors:2", &[letter, "/dead-letters/house/1"])
        .await;
    console
        .shows("/events/sensors:9", &["waits behind a dead letter"])
        .await;
    // Foreign events lie between; the place is found nevertheless.
    for value in 20..25 {
        let by_hand = SensorRead {
            sensor: "x".to_owned(),
            value,
        };
        source
            .publish_raw("sensors.v1.read.0", None, &by_hand)
            .await;
    }
    source.append(11..=12).await;
    source.published(17).await;
    console
        .shows("/events/sensors:4", &["4 of SENSORS", "applied"])
        .await;
    console
        .shows("/events/sensors:11", &["16 of SENSORS", "applied"])
        .await;
    console
        .shows("/events/sensors@12", &["published by hand", "not known"])
        .await;
    for none in ["sensors:99", "sensors@99", "nonsense", "sensors:0"] {
        let (status, text) = console.page(&format!("/events/{none}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{none}: {text}");
    }
    let line = ["projection", "pause", "readings", "--reason=a <b>test"];
    assert_eq!(source.tool(&line).await.code, Some(0));
    source.append(13..=15).await;
    source.published(20).await;
    let paused = "paused: a &#60;b&#62;test; 2 events before it";
    console.shows("/events/sensors:15", &[paused]).await;
    house.close().await;
    console.close().await;
    source.stop().await;
}

#[tokio::test]
async fn hostile_text_is_shown_as_text() {
    let hostile = "<script>alert(1)</script>\" onload=\"x\r\nevent: row\r\n\r\n";
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let console = Console::start(&source, &[], &[]).await;
    let event = SensorRead {
        sensor: hostile.to_owned(),
        value: 1,
    };
    let subject = headwater::subject_of(&event);
    source.publish_raw(&subject, None, &event).await;
    source.published(1).await;
    for path in [
        "/events",
        "/events/sensors@1",
        "/events?text=%3Cscript%3E",
        "/events?key=%22%3E%3Cscript%3E",
    ] {
        let text = console.shows(path, &[]).await;
        assert!(
            !text.contains("<script>") && !text.contains("\" onload="),
            "{path}: {text}"
        );
    }
    let stream = console.get("/live/events?after=sensors%3A0").send().await;
    let heard = hears(stream.expect("an answer"), "alert(1)").await;
    assert!(!heard.contains("<script>"), "{heard}");
    let events = heard.lines().filter(|line| line.starts_with("event:"));
    assert_eq!(events.count(), 1, "{heard}");
    console.close().await;
    source.stop().await;
}
