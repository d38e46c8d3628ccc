//! The control room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use headwater_testkit::eventually;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::support::{Dev, assert_all_gone, client, is_gone, json, pid, url};

/// A browser that has opened the address of the summary.
struct Room {
    base: String,
    cookie: String,
    client: Client,
    opened: Instant,
    page: Arc<Mutex<Page>>,
}

/// What the page shows, by name, and how often it got news.
#[derive(Default)]
struct Page {
    values: BTreeMap<String, String>,
    news: u128,
    /// What it says has happened.
    reports: String,
}

impl Room {
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    async fn open(summary: &Value) -> Self {
        let address = summary["room"].as_str().unwrap();
        let visit = Client::builder().redirect(Policy::none()).build().unwrap();
        let visit = visit.get(address).send().await.unwrap();
        assert_eq!(visit.status(), StatusCode::SEE_OTHER);
        assert_eq!(visit.headers()["location"], "/");
        let cookie = visit.headers()["set-cookie"].to_str().unwrap();
        assert!(cookie.ends_with("; HttpOnly; SameSite=Strict; Path=/"));
        let room = Self {
            base: address.split_once("/?").unwrap().0.to_owned(),
            cookie: cookie.split_once(';').unwrap().0.to_owned(),
            client: client(),
            opened: Instant::now(),
            page: Arc::default(),
        };
        let live = room.send(Method::GET, "/live").await;
        assert_eq!(live.headers()["content-type"], "text/event-stream");
        tokio::spawn(follow(live, Arc::clone(&room.page)));
        room
    }

    async fn send(&self, method: Method, path: &str) -> Response {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = request
            .header("cookie", &self.cookie)
            .header("origin", &self.base);
        request.send().await.unwrap()
    }

    /// Sends a form; the answer is the page.
    async fn post(&self, path: &str) -> String {
        let page = self.send(Method::POST, path).await;
        assert_eq!(page.status(), StatusCode::OK, "{path}");
        assert_eq!(page.url().path(), "/");
        page.text().await.unwrap()
    }

    fn value(&self, name: &str) -> String {
        let page = self.page.lock().unwrap();
        page.values.get(name).cloned().unwrap_or_default()
    }

    /// Waits until the page shows this.
    async fn shows(&self, name: &str, is: impl Fn(&str) -> bool) {
        eventually(name, || async {
            let value = self.value(name);
            if is(&value) { Ok(()) } else { Err(value) }
        })
        .await;
    }

    /// Waits until the page says that this has happened.
    async fn says(&self, what: &str) {
        eventually(what, || async {
            let page = self.page.lock().unwrap();
            if page.reports.contains(what) {
                Ok(())
            } else {
                Err(page.reports.clone())
            }
        })
        .await;
    }

    /// Waits until the styles are in these states: replica, composition, request-reply.
    async fn styles(&self, states: [&str; 3]) {
        eventually("the three styles", || async {
            let now = ["replica", "composition", "request-reply"]
                .map(|style| self.value(&format!("style.{style}.state")));
            if now == states {
                Ok(())
            } else {
                Err(format!("{now:?}, not {states:?}"))
            }
        })
        .await;
    }

    async fn process(&self, name: &str, state: &str) {
        self.shows(&format!("process.{name}.state"), |now| now == state)
            .await;
    }

    /// Asserts that news came at most every 250 ms.
    fn assert_calm(&self) {
        let news = self.page.lock().unwrap().news;
        let most = self.opened.elapsed().as_millis() / 250 + 1;
        assert!(news <= most, "{news} times, not {most}");
    }

    fn pid(&self, name: &str) -> Pid {
        let pid = self.value(&format!("process.{name}.pid"));
        Pid::from_raw(pid.parse().unwrap()).unwrap()
    }
}

/// Keeps the values of a stream of server-sent events.
async fn follow(mut live: Response, page: Arc<Mutex<Page>>) {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = live.chunk().await {
        text.extend_from_slice(&chunk);
        while let Some(end) = text.windows(2).position(|end| end == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            let event = String::from_utf8(event).unwrap();
            let mut page = page.lock().unwrap();
            if let Some((_, data)) = event.split_once("event: values\ndata: ") {
                let news: BTreeMap<String, String> = serde_json::from_str(data).unwrap();
                page.values.extend(news);
                page.news += 1;
            } else {
                page.reports += &event;
            }
        }
    }
}

#[tokio::test]
async fn nobody_gets_in_without_the_token_or_under_another_name() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &["--no-seed"]);
    let room = Room::open(&summary).await;
    for path in [
        "/",
        "/?token=0123456789abcdef0123456789abcdef",
        "/live",
        "/room.js",
    ] {
        let answer = client()
            .get(format!("{}{path}", room.base))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert!(!answer.headers().contains_key("set-cookie"));
    }
    let evil = room.client.get(&room.base).header("cookie", &room.cookie);
    let evil = evil.header("host", "evil.example").send().await.unwrap();
    assert_eq!(evil.status(), StatusCode::MISDIRECTED_REQUEST);
    let kill = room
        .client
        .post(format!("{}/processes/orders/kill", room.base));
    let kill = kill.header("cookie", &room.cookie);
    let foreign = kill.header("origin", url(&summary, "products", ""));
    assert_eq!(
        foreign.send().await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    room.process("orders", "running").await;

    let page = room.send(Method::GET, "/").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
    let page = page.text().await.unwrap();
    assert!(page.contains("start <code>cargo dev</code> without <code>--no-seed</code>"));
    room.post("/orders/10").await;
    room.says("Placed 0 of 10 orders: 422 ").await;
    let page = room.post("/processes/orders/start").await;
    assert!(page.contains("orders is running already."), "{page}");
    let page = room.post("/processes/nobody/kill").await;
    assert!(page.contains("There is no process nobody."), "{page}");
    dev.stop();
}

#[tokio::test]
async fn with_orders_killed_who_asks_it_fails_and_the_replica_answers() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    let room = Room::open(&summary).await;
    room.styles(["good"; 3]).await;
    let killed = pid(&summary["services"]["orders"]);
    assert_eq!(room.pid("orders"), killed);
    let page = room.post("/processes/orders/kill").await;
    assert!(page.contains("orders is killed."), "{page}");
    room.styles(["good", "bad", "bad"]).await;
    room.process("orders", "stopped").await;
    for style in ["composition", "request-reply"] {
        let answer = room.value(&format!("style.{style}.answer"));
        assert!(
            answer.starts_with("No answer: 503 (") && answer.contains("orders"),
            "{answer}"
        );
    }
    let replica = room.value("style.replica.answer");
    assert!(replica.contains("products, the newest: "), "{replica}");
    assert!(is_gone(killed));
    room.assert_calm();
    room.post("/orders/10").await;
    room.says("Placed 0 of 10 orders: orders does not answer")
        .await;

    room.post("/processes/orders/start").await;
    room.styles(["good"; 3]).await;
    let started = room.pid("orders");
    assert_ne!(started, killed);
    room.says("API composition fails: 503 (").await;
    room.says("API composition answers again.").await;
    dev.stop();
    assert!(is_gone(started));
    assert_all_gone(&summary);
}

#[tokio::test]
async fn the_replica_falls_behind_a_paused_broker_and_catches_up() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    let room = Room::open(&summary).await;
    room.styles(["good"; 3]).await;
    let before: u64 = room.value("source.orders").parse().unwrap();
    room.post("/processes/nats-server/pause").await;
    room.process("nats-server", "paused").await;
    room.post("/orders/20").await;
    room.shows("source.orders", |now| now == (before + 20).to_string())
        .await;
    room.styles(["late", "good", "bad"]).await;
    assert_eq!(room.value("stream.orders"), before.to_string());
    room.post("/processes/nats-server/continue").await;
    room.styles(["good"; 3]).await;
    for shown in ["stream.orders", "store.orders"] {
        room.shows(shown, |now| now == (before + 20).to_string())
            .await;
    }
    let demo = summary["page"]["url"].as_str().unwrap();
    let answer = json(format!("{demo}/purchases")).await;
    assert_eq!(answer["as_of"]["orders"], before + 20);
    dev.stop();
}

#[tokio::test]
async fn events_are_seen_in_their_stream_before_the_replica_has_applied_them() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    let room = Room::open(&summary).await;
    room.styles(["good"; 3]).await;
    let before: u64 = room.value("source.orders").parse().unwrap();
    room.post("/processes/purchases/pause").await;
    room.process("purchases", "paused").await;
    room.post("/orders/20").await;
    let after = (before + 20).to_string();
    room.shows("stream.orders", |now| now == after).await;
    assert_eq!(room.value("store.orders"), before.to_string());
    room.post("/processes/purchases/continue").await;
    room.shows("store.orders", |now| now == after).await;
    room.styles(["good"; 3]).await;
    dev.stop();
}

#[tokio::test]
async fn a_slow_link_makes_those_slow_who_ask() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    let room = Room::open(&summary).await;
    room.styles(["good"; 3]).await;
    room.post("/link/150").await;
    room.shows("link", |now| now == "slow").await;
    // There and back: at least 300 ms.
    for style in ["composition", "request-reply"] {
        room.shows(&format!("style.{style}.took"), |took| {
            let ms = took
                .strip_suffix(" ms")
                .and_then(|ms| ms.parse::<f64>().ok());
            ms.is_some_and(|ms| ms >= 300.0)
        })
        .await;
    }
    // The replica gets new orders later.
    room.post("/orders/10").await;
    room.styles(["late", "good", "good"]).await;
    room.post("/link/0").await;
    room.styles(["good"; 3]).await;
    dev.stop();
}

#[tokio::test]
async fn what_the_room_has_paused_stopped_or_started_ends_with_cargo_dev() {
    let data = tempfile::tempdir().unwrap();
    let (mut dev, summary) = Dev::start(data.path(), &["--no-seed"]);
    let room = Room::open(&summary).await;
    for (name, verb, state) in [
        ("nats-server", "stop", "stopped"),
        ("nats-server", "start", "running"),
        ("orders", "kill", "stopped"),
        ("orders", "start", "running"),
        ("orders", "pause", "paused"),
        ("users", "pause", "paused"),
        ("purchases", "stop", "stopped"),
        ("nats-server", "pause", "paused"),
    ] {
        room.post(&format!("/processes/{name}/{verb}")).await;
        room.process(name, state).await;
    }
    let started = ["orders", "nats-server"].map(|name| room.pid(name));
    dev.signal(Signal::INT);
    assert_eq!(dev.ended().code(), Some(0), "{}", dev.stderr());
    assert!(!dev.stderr().contains("killed"), "{}", dev.stderr());
    assert!(started.into_iter().all(is_gone));
    assert_all_gone(&summary);
}

#[test]
fn there_need_not_be_a_room() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &["--no-seed", "--no-room"]);
    assert_eq!(summary["room"], Value::Null);
    dev.stop();
}
