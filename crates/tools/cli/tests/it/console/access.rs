//! Who is answered, and who may act.

use reqwest::{StatusCode, header};

use super::{Console, status};
use crate::house::House;
use crate::source::{PROTO, Source, VIEWER};

#[tokio::test]
async fn only_the_browser_that_was_given_the_address_is_answered() {
    let source = Source::start().await;
    let console = Console::start(&source, &[], &[]).await;
    for path in ["/", "/events", "/console.js", "/live/overview", "/none"] {
        assert_eq!(
            status(console.bare(path)).await,
            StatusCode::UNAUTHORIZED,
            "{path}"
        );
    }
    let wrong = format!("/?token={}x", console.token);
    assert_eq!(status(console.bare(&wrong)).await, StatusCode::UNAUTHORIZED);
    let forged = console
        .bare("/")
        .header(header::COOKIE, format!("{}x", console.cookie));
    assert_eq!(status(forged).await, StatusCode::UNAUTHORIZED);
    let rebound = console.get("/").header(header::HOST, "evil.test");
    assert_eq!(status(rebound).await, StatusCode::MISDIRECTED_REQUEST);
    let token = format!("/?token={}", console.token);
    let rebound = console.bare(&token).header(header::HOST, "evil.test");
    assert_eq!(status(rebound).await, StatusCode::MISDIRECTED_REQUEST);
    let answer = console.get("/").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let policy = answer.headers()["content-security-policy"]
        .to_str()
        .expect("text");
    assert!(
        policy.starts_with("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    let text = answer.text().await.expect("text");
    assert!(!text.contains("<style") && !text.contains(" style=") && !text.contains("<script>"));
    assert_eq!(console.page("/none").await.0, StatusCode::NOT_FOUND);
    for file in ["/console.css", "/console.js"] {
        assert_eq!(console.page(file).await.0, StatusCode::OK, "{file}");
    }
    console.close().await;
    source.stop().await;
}

#[tokio::test]
async fn other_machines_never_reach_it() {
    let source = Source::start().await;
    let ended = source.tool(&["console", "--listen=0.0.0.0:0"]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("must be a loopback address"),
        "{ended:?}"
    );
    source.stop().await;
}

#[tokio::test]
async fn a_viewer_cannot_act_not_even_by_a_forged_form() {
    let mut source = Source::start().await;
    source.describe(PROTO).await;
    let house = House::open(&source, false).await;
    source.append(1..=10).await;
    let console = Console::start(&source, &[], &VIEWER).await;
    for (path, text) in [
        ("/", "2 dead letters of readings wait"),
        ("/events", "sensors:10"),
        ("/events/sensors:3", "applied"),
        ("/dead-letters/house/1", "two is too many"),
        ("/dead-letters?show=discarded", "There are none"),
    ] {
        console.shows(path, &[text]).await;
    }
    let text = console.shows("/dead-letters", &["house:1"]).await;
    assert!(
        !text.contains("checkbox") && !text.contains("/confirm\"><"),
        "{text}"
    );
    let (status, text) = console.page("/confirm?verb=retry&pick=house:1").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(text.contains("headwater console --as-operator"), "{text}");
    let body = "verb=discard&pick=house:1&reason=x".to_owned();
    let posted = console
        .post("/actions", body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(posted.status(), StatusCode::FORBIDDEN);
    console.close().await;

    // As an operator with the login of a viewer, the bus refuses.
    let flags = ["--as-operator", "--timeout=2s"];
    let console = Console::start(&source, &flags, &VIEWER).await;
    let pause = "verb=pause&service=house&projection=readings";
    let (_, ended) = console.does(pause, "x").await;
    assert!(
        ended.contains("log in as a user with permission"),
        "{ended}"
    );
    let (_, outcome) = console.log().pop().expect("an entry");
    assert!(outcome.starts_with("failed: "), "{outcome}");
    let listed = source.tool(&["projection", "list"]).await;
    assert!(!listed.stdout.contains("PAUSED"), "{listed:?}");
    house.close().await;
    console.close().await;
    source.stop().await;
}

#[tokio::test]
async fn a_form_from_elsewhere_is_refused() {
    let source = Source::start().await;
    let house = House::open(&source, false).await;
    source.append(1..=10).await;
    let console = Console::as_operator(&source).await;
    console.shows("/dead-letters", &["house:1"]).await;
    let good = "verb=retry&pick=house:1".to_owned();
    let evil = console.client.post(format!("{}/actions", console.base));
    let evil = evil
        .header(header::COOKIE, &console.cookie)
        .body(good.clone());
    assert_eq!(
        status(evil.try_clone().expect("a copy")).await,
        StatusCode::FORBIDDEN
    );
    let evil = evil.header(header::ORIGIN, "http://evil.test");
    assert_eq!(status(evil).await, StatusCode::FORBIDDEN);
    let site = console
        .post("/actions", good)
        .header("Sec-Fetch-Site", "same-site");
    assert_eq!(status(site).await, StatusCode::FORBIDDEN);
    assert!(console.log().is_empty(), "nothing was done");
    house.close().await;
    console.close().await;
    source.stop().await;
}
