//! `headwater console` over HTTP, against a real source and a real read store.

use std::process::Command;

use reqwest::{Client, RequestBuilder, Response, StatusCode, header, redirect};
use serde_json::Value;
use tempfile::TempDir;

use crate::house::House;
use crate::source::{PERSONAL, PROTO, SensorRead, Source, VIEWER, eventually};
use crate::tool::{self, Tool};

/// A console, and a browser that was given its address.
struct Console {
    tool: Tool,
    /// `http://127.0.0.1:7777`.
    base: String,
    token: String,
    cookie: String,
    client: Client,
    folder: TempDir,
}

impl Console {
    async fn start(source: &Source, flags: &[&str], login: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().to_str().expect("UTF-8").to_owned();
        let url = source.broker.url();
        let environment = [&[("NATS_URL", &*url), ("XDG_STATE_HOME", &*state)], login].concat();
        let line = [&["console", "--every=300ms"], flags].concat();
        let mut tool = tool::start(&line, &environment);
        let address = tool.says().await;
        let (base, token) = address.trim().split_once("/?token=").expect("a token");
        let client = Client::builder().redirect(redirect::Policy::none());
        let client = client.build().expect("a client");
        let mut console = Self {
            tool,
            base: base.to_owned(),
            token: token.to_owned(),
            cookie: String::new(),
            client,
            folder,
        };
        let entered = console.bare(&format!("/?token={token}")).send().await;
        let entered = entered.expect("an answer");
        assert_eq!(entered.status(), StatusCode::SEE_OTHER);
        assert_eq!(entered.headers()[header::LOCATION], "/");
        let cookie = entered.headers()[header::SET_COOKIE]
            .to_str()
            .expect("text");
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"));
        cookie
            .split(';')
            .next()
            .expect("a pair")
            .clone_into(&mut console.cookie);
        console
    }

    async fn as_operator(source: &Source) -> Self {
        Self::start(source, &["--as-operator"], &[]).await
    }

    /// A request without the cookie.
    fn bare(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.base))
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.bare(path).header(header::COOKIE, &self.cookie)
    }

    /// The status and the page.
    async fn page(&self, path: &str) -> (StatusCode, String) {
        let answer = self.get(path).send().await.expect("an answer");
        (answer.status(), answer.text().await.expect("text"))
    }

    /// The page, once it has all the texts.
    async fn shows(&self, path: &str, texts: &[&str]) -> String {
        let what = format!("{path} with {texts:?}");
        eventually(&what, async || {
            let (status, text) = self.page(path).await;
            let has_all = texts.iter().all(|it| text.contains(it));
            if status == StatusCode::OK && has_all {
                Ok(text)
            } else {
                Err(format!("{status}: {text}"))
            }
        })
        .await
    }

    fn post(&self, path: &str, body: String) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        let request = self.client.post(url).header(header::COOKIE, &self.cookie);
        let form = "application/x-www-form-urlencoded";
        let request = request.header(header::CONTENT_TYPE, form);
        request.header(header::ORIGIN, &self.base).body(body)
    }

    /// Confirms an action on its page, and does it; returns its page when it has ended.
    async fn does(&self, query: &str, reason: &str) -> (String, String) {
        let (status, confirm) = self.page(&format!("/confirm?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{query}: {confirm}");
        let body = format!("{query}&reason={reason}");
        let begun = self.post("/actions", body).send().await.expect("an answer");
        assert_eq!(begun.status(), StatusCode::SEE_OTHER, "{query}");
        let path = begun.headers()[header::LOCATION].to_str().expect("text");
        let ended = eventually("the action to end", async || {
            let (_, text) = self.page(path).await;
            if text.contains("data-live") {
                Err(text)
            } else {
                Ok(text)
            }
        })
        .await;
        (confirm, ended)
    }

    /// The entries of the log's file, the oldest first: what and outcome.
    fn log(&self) -> Vec<(String, String)> {
        let file = self.folder.path().join("headwater/console.log");
        let text = std::fs::read_to_string(file).expect("the log");
        let entry = |line: &str| {
            let entry: Value = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| entry[name].as_str().expect(name).to_owned();
            assert!(
                !text("user").is_empty() && !text("nats").is_empty(),
                "{entry}"
            );
            (text("what"), text("outcome"))
        };
        text.lines().map(entry).collect()
    }

    /// Ends it as Ctrl-C does.
    async fn close(self) {
        let id = self.tool.id().expect("it runs").to_string();
        let signalled = Command::new("kill").args(["-INT", &id]).status();
        assert!(signalled.expect("run kill").success());
        let ended = self.tool.end().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.expect("an answer").status()
}

/// Reads server-sent events until one has the text.
async fn hears(mut stream: Response, text: &str) -> String {
    let mut heard = String::new();
    let reading = async {
        while let Some(chunk) = stream.chunk().await.expect("a chunk") {
            heard.push_str(&String::from_utf8_lossy(&chunk));
            if heard.contains(text) {
                return;
            }
        }
        panic!("the stream ended");
    };
    let waited = tokio::time::timeout(headwater_testkit::PATIENCE, reading).await;
    assert!(waited.is_ok(), "{text} is not in {heard}");
    heard
}

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
    let letter = [
        "sensor 2",
        "two is too many",
        "What waits behind it: 1",
        "house:2",
    ];
    console.shows("/dead-letters/house/1", &letter).await;

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
    let source = Source::start().await;
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
