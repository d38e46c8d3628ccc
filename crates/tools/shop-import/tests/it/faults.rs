//! Services that are down, busy or unreachable.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use terminal::Exit;
use tokio::net::{TcpListener, TcpSocket};

use crate::shop::{Scripted, Shop};
use crate::tool::{self, Files, import};

fn busy() -> Scripted {
    Scripted {
        status: 503,
        retry_after: None,
        body: json!({"detail": "one moment"}),
    }
}

/// An address where no process listens, nor can while the socket exists.
fn nowhere() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("socket");
    socket
        .bind("127.0.0.1:0".parse().expect("address"))
        .expect("bind");
    let address = socket.local_addr().expect("address");
    (socket, address)
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for status in [429, 500, 502, 503, 504] {
        let (shop, files) = (Shop::open().await, Files::of_users(1));
        shop.answer_next(status, None, Value::Null);
        let summary = import(&shop, &files, &[]).await;
        assert_eq!(
            (summary.users.imported, summary.exit()),
            (1, Exit::Done),
            "{status}"
        );
        let keys: Vec<_> = shop
            .requests("users")
            .into_iter()
            .map(|request| request.key)
            .collect();
        assert_eq!(keys.len(), 2, "{status}");
        assert_eq!(keys[0], keys[1]);
    }
}

#[tokio::test]
async fn pauses_double() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    for _ in 0..3 {
        shop.answer_next(503, None, Value::Null);
    }
    import(&shop, &files, &[]).await;
    let at: Vec<_> = shop
        .requests("users")
        .iter()
        .map(|request| request.at)
        .collect();
    for (times, pause_ms) in at.windows(2).zip([100, 200, 400]) {
        assert!(
            times[1] - times[0] >= Duration::from_millis(pause_ms),
            "{at:?}"
        );
    }
}

#[tokio::test]
async fn a_busy_service_is_left_alone_as_long_as_it_asks() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    shop.answer_next(503, Some(1), Value::Null);
    import(&shop, &files, &[]).await;
    let requests = shop.requests("users");
    assert!(requests[1].at - requests[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_service_that_asks_for_more_than_the_patience_is_not_waited_for() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    shop.answer_next(503, Some(u64::MAX), Value::Null);
    let summary = import(&shop, &files, &[]).await;
    assert_eq!((summary.users.failed, summary.exit()), (1, Exit::Failed));
}

#[tokio::test]
async fn a_cut_connection_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let files = Files::of_users(1);
    let tool = tool::import_by(&url, &files, &[]);
    drop(listener.accept().await.expect("accept"));
    let shop = Shop::on(listener);
    let ended = tool.end().await;
    assert_eq!(
        (ended.code, shop.records("users").len()),
        (Some(0), 1),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_service_may_come_up_later() {
    let ((socket, address), files) = (nowhere(), Files::of_users(3));
    let mut tool = tool::import_by(&format!("http://{address}"), &files, &[]);
    let notice = tool.complaint().await;
    assert!(notice.contains("no answer (Connection refused"), "{notice}");
    let shop = Shop::on(socket.listen(128).expect("listen"));
    let ended = tool.end().await;
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (Some(0), ""),
        "reported only once"
    );
    assert_eq!(shop.records("users").len(), 3);
}

#[tokio::test]
async fn a_line_that_uses_up_the_patience_is_reported_and_the_rest_is_imported() {
    let (shop, files) = (Shop::open().await, Files::of_users(20));
    shop.books().never = Some(("user 7".to_owned(), busy()));
    let ended = tool::import_by(&shop.url, &files, &["--in-flight=2", "--patience=0.5"])
        .end()
        .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = files.anonymous(&ended.stderr);
    assert!(
        report.contains("users.jsonl:7: 503 Service Unavailable: one moment, gave up"),
        "{report}"
    );
    assert_eq!(shop.records("users").len(), 19);
}

#[tokio::test]
async fn lines_that_use_up_the_patience_here_and_there_do_not_stop_the_import() {
    let (shop, files) = (Shop::open().await, Files::of_users(300));
    shop.books().never = Some(("7".to_owned(), busy()));
    let summary = import(&shop, &files, &["--in-flight=1", "--patience=0"]).await;
    assert_eq!((summary.users.imported, summary.users.failed), (270, 30));
    assert_eq!(summary.exit(), Exit::Failed);
}

#[tokio::test]
async fn a_service_that_is_away_stops_the_import_once_the_patience_is_used_up() {
    let (shop, files) = (Shop::open().await, Files::small());
    let (_held, address) = nowhere();
    files.write("users", crate::tool::users(100_000));
    let started = Instant::now();
    let url = format!("http://{address}/");
    let ended = tool::import_at(
        [&url, &shop.url, &shop.url],
        &files,
        &["--patience=0.5", "-ojson"],
    )
    .end()
    .await;

    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
    let last = ended.stderr.lines().last().expect("a message");
    for part in [&url, "Connection refused", "cargo dev", "--users-url"] {
        assert!(last.contains(part), "{part} is not in {last}");
    }
    assert_eq!(shop.requests("orders").len(), 0, "orders need users");
    let summary: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(
        summary["products"]["imported"], 3,
        "the summary has what was done: {summary}"
    );
    assert!(
        summary["stopped"]
            .as_str()
            .expect("why")
            .contains("cannot be reached"),
        "{summary}"
    );
}

#[tokio::test]
async fn a_service_that_puts_off_every_line_stops_the_import() {
    let (shop, files) = (Shop::open().await, Files::of_users(1_000));
    for _ in 0..1_000 {
        shop.answer_next(503, None, json!({"detail": "the disk is full"}));
    }
    let ended = tool::import_by(&shop.url, &files, &["--patience=0", "--in-flight=4"])
        .end()
        .await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(
        shop.requests("users").len() < 100,
        "{}",
        shop.requests("users").len()
    );
    assert!(
        ended
            .stderr
            .lines()
            .last()
            .expect("a message")
            .contains("the disk is full"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_service_that_never_answers_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let ended = tool::import_by(&url, &Files::of_users(1), &["--patience=0"])
        .end()
        .await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("timed out"), "{ended:?}");
}

#[tokio::test]
async fn proxy_variables_are_ignored() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    let (_held, address) = nowhere();
    let proxy = format!("http://{address}");
    let users = format!("--users={}", files.path("users").display());
    let url = format!("--users-url={}", shop.url);
    let line = [&users, &url, "--patience=0"];
    let ended = tool::start(
        &line,
        &[
            ("HTTP_PROXY", &proxy),
            ("http_proxy", &proxy),
            ("ALL_PROXY", &proxy),
        ],
    )
    .end()
    .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
