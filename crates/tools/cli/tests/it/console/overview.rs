//! The first page.

use super::{Console, hears};
use crate::house::House;
use crate::source::{PROTO, Source, eventually};

#[tokio::test]
async fn the_overview_has_the_state_the_lag_and_what_doctor_says() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, false).await;
    let console = Console::start(&source, &[], &[]).await;
    source.append(1..=10).await;
    let fix = "headwater dead-letter list --service house";
    let text = console
        .shows("/", &["2 dead letters of readings wait", fix])
        .await;
    let doctor = source.tool(&["doctor"]).await;
    assert!(
        doctor.stdout.contains("2 dead letters of readings wait"),
        "{doctor:?}"
    );
    for shown in [
        "SENSORS",
        "<polyline points=",
        "Lag of readings behind sensors: 0 events now",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    assert!(!text.contains("/confirm"), "a viewer has no buttons");
    let live = console
        .get("/live/overview")
        .send()
        .await
        .expect("an answer");
    let heard = hears(live, "event: page").await;
    hears_the_page(&console, heard).await;
    house.close().await;
    console.close().await;
    source.stop().await;
}

/// The first update may be cut within its page.
async fn hears_the_page(console: &Console, heard: String) {
    if !heard.contains("dead letters of readings wait") {
        let live = console
            .get("/live/overview")
            .send()
            .await
            .expect("an answer");
        hears(live, "2 dead letters of readings wait").await;
    }
}

/// The console outlives its broker, and reports since when it knows nothing new.
#[tokio::test]
async fn a_broker_that_is_away_is_reported_until_it_is_back() {
    let mut source = Source::start().await;
    let console = Console::start(&source, &["--timeout=1s"], &[]).await;
    console.shows("/", &["SENSORS"]).await;
    source.broker.kill().expect("it is killed");
    console.shows("/", &["Not up to date", "SENSORS"]).await;
    source.broker.restart().expect("it is back");
    eventually("a new look at the system", async || {
        let (_, text) = console.page("/").await;
        if text.contains("Not up to date") {
            Err(text)
        } else {
            Ok(())
        }
    })
    .await;
    console.close().await;
    source.stop().await;
}
