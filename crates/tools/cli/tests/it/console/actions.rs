//! Actions, from their confirmation to their end.

use reqwest::{StatusCode, header};

use super::{Console, hears, status};
use crate::house::House;
use crate::source::{PROTO, SensorRead, Source, VIEWER, eventually};

#[tokio::test]
async fn projections_are_paused_resumed_rebuilt_and_verified() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, true).await;
    source.append(1..=30).await;
    source.published(30).await;
    let console = Console::as_operator(&source).await;
    console
        .shows(
            "/",
            &[
                "verb=pause&#38;service=house&#38;projection=readings",
                "Verify everything",
            ],
        )
        .await;
    let of = |verb: &str| format!("verb={verb}&service=house&projection=readings");
    let (confirm, ended) = console.does(&of("pause"), "disk").await;
    assert!(confirm.contains("even across restarts"), "{confirm}");
    assert!(ended.contains("readings of house is paused at"), "{ended}");
    console
        .shows("/", &["is paused since", "disk", "verb=resume"])
        .await;
    let (_, ended) = console.does(&of("resume"), "").await;
    assert!(ended.contains("readings of house resumes at"), "{ended}");
    let (confirm, ended) = console.does(&of("rebuild"), "").await;
    assert!(confirm.contains("No read fails"), "{confirm}");
    assert!(
        ended.contains("readings is rebuilt, at sensors:30"),
        "{ended}"
    );
    let (_, ended) = console.does("verb=verify", "").await;
    assert!(ended.contains("all agree"), "{ended}");
    let (_, ended) = console
        .does(&of("nonsense").replace("nonsense", "resume"), "")
        .await;
    assert!(
        ended.contains("resumes"),
        "resuming twice is no error: {ended}"
    );
    let (status, _) = console.page("/confirm?verb=drop").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    house.close().await;
    console.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_stream_is_restored_with_what_is_lost_said_before() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    source.append(1..=5).await;
    source.published(5).await;
    let by_hand = SensorRead {
        sensor: "x".to_owned(),
        value: 7,
    };
    source
        .publish_raw("sensors.v1.read.0", None, &by_hand)
        .await;
    let console = Console::as_operator(&source).await;
    console.shows("/", &["Restore the stream of sensors"]).await;
    let (confirm, ended) = console.does("verb=restore&source=sensors", "").await;
    let lost = "lost with the stream: 1 events that were published by hand";
    assert!(
        confirm.contains(lost) && confirm.contains("cannot be undone"),
        "{confirm}"
    );
    assert!(
        ended.contains("SENSORS is refilled from the outbox of sensors, up to 5"),
        "{ended}"
    );
    console.close().await;
    source.stop().await;
}

/// A verification waits for a relay that does not publish; cancelled, it ends.
#[tokio::test]
async fn an_action_that_runs_shows_its_state_and_can_be_cancelled() {
    let mut source = Source::without_relay().await;
    source.describe(PROTO).await;
    source.append(1..=5).await;
    let console = Console::as_operator(&source).await;
    console.shows("/", &["Verify everything"]).await;
    let begun = console
        .post("/actions", "verb=verify".to_owned())
        .send()
        .await
        .expect("an answer");
    assert_eq!(begun.headers()[header::LOCATION], "/actions/1");
    let live = console
        .get("/live/actions/1")
        .send()
        .await
        .expect("an answer");
    hears(live, "running").await;
    let text = console.shows("/actions/1", &["Cancel it"]).await;
    assert!(text.contains("data-live=\"/live/actions/1\""), "{text}");
    let cancelled = console.post("/actions/1/cancel", String::new());
    assert_eq!(status(cancelled).await, StatusCode::SEE_OTHER);
    console
        .shows("/actions/1", &["cancelled", "it was ended early"])
        .await;
    let again = console.post("/actions/1/cancel", String::new());
    assert_eq!(status(again).await, StatusCode::CONFLICT);
    assert_eq!(console.page("/actions/9").await.0, StatusCode::NOT_FOUND);
    console.close().await;
    source.stop().await;
}

/// An event is missing in the stream, and the source, which has it, does not answer.
#[tokio::test]
async fn a_rebuild_that_waits_is_cancelled_and_the_live_store_serves() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, true).await;
    source.append(1..=5).await;
    house.stores(&[1, 2, 3, 4, 5]).await;
    source.stream.delete_message(2).await.expect("it was there");
    source.be_silent().await;
    let console = Console::as_operator(&source).await;
    let rebuild = "verb=rebuild&service=house&projection=readings";
    let begun = console.post("/actions", rebuild.to_owned());
    assert_eq!(status(begun).await, StatusCode::SEE_OTHER);
    let waits = ["rebuild of readings of house", "waits for sensors"];
    console.shows("/", &waits).await;
    console.shows("/actions/1", &["running", "Cancel it"]).await;
    let cancelled = console.post("/actions/1/cancel", String::new());
    assert_eq!(status(cancelled).await, StatusCode::SEE_OTHER);
    let ended = "it was ended early: the old rows of readings of house still serve";
    console.shows("/actions/1", &["cancelled", ended]).await;
    let log = console.log();
    let outcomes: Vec<&str> = log.iter().map(|(_, outcome)| &**outcome).collect();
    let cancelled = format!("cancelled: {ended}");
    assert_eq!(outcomes, ["begun", "cancel requested", &cancelled]);
    source.append(6..=6).await;
    house.stores(&[1, 2, 3, 4, 5, 6]).await;

    source.answer();
    let (_, ended) = console.does(rebuild, "").await;
    assert!(
        ended.contains("readings is rebuilt, at sensors:6"),
        "{ended}"
    );
    house.close().await;
    console.close().await;
    source.stop().await;
}

/// Another operator's verification waits for an event that only the source has, which does not
/// answer. That of the console waits for the source, and has not begun to compare.
#[tokio::test]
async fn to_cancel_a_verification_ends_no_other() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, true).await;
    source.append(1..=5).await;
    house.stores(&[1, 2, 3, 4, 5]).await;
    source.stream.delete_message(2).await.expect("it was there");
    source.be_silent().await;
    source.ask("headwater.house.verify", "{}").await;
    let waits = async || {
        let status = source.ask("headwater.house.fold", "{}").await;
        let is_waiting = status["waiting"]["sensors"].is_string();
        is_waiting.then_some(()).ok_or(status)
    };
    eventually("the other verification to wait", waits).await;
    let console = Console::as_operator(&source).await;
    let other = Console::as_operator(&source).await;
    let viewer = Console::start(&source, &[], &VIEWER).await;
    let begun = console.post("/actions", "verb=verify".to_owned());
    assert_eq!(status(begun).await, StatusCode::SEE_OTHER);
    for (stranger, refused) in [
        (&other, StatusCode::NOT_FOUND),
        (&viewer, StatusCode::FORBIDDEN),
    ] {
        let cancelled = stranger.post("/actions/1/cancel", String::new());
        assert_eq!(status(cancelled).await, refused);
    }
    let cancelled = console.post("/actions/1/cancel", String::new());
    assert_eq!(status(cancelled).await, StatusCode::SEE_OTHER);
    console.shows("/actions/1", &["it was ended early"]).await;
    source.answer();
    eventually("the other verification to end", async || {
        let status = source.ask("headwater.house.fold", "{}").await;
        match status["state"].as_str() {
            Some("done") => Ok(()),
            // It has waited for its source long enough.
            Some("failed") if status.to_string().contains("gave up") => Ok(()),
            _ => Err(status),
        }
    })
    .await;
    house.close().await;
    for console in [console, other, viewer] {
        console.close().await;
    }
    source.stop().await;
}
