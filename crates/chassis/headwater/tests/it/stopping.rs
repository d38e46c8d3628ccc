//! Clients do not delay a stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::routing::{get, post};
use headwater::http::app;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use utoipa_axum::router::OpenApiRouter;

use crate::support::{PATIENCE, Tasks, about, http_config, serve};

/// Larger than the kernel's buffers.
const LARGE: usize = 16 * 1024 * 1024;

/// Well below the timeout of the whole stop.
const SOON: Duration = Duration::from_secs(5);

struct Service {
    tasks: Tasks,
    address: String,
    release: Arc<Semaphore>,
    waiting: Arc<Notify>,
}

/// A service whose clients may be arbitrarily slow until it stops.
async fn service() -> Service {
    let mut config = http_config();
    (config.header_timeout, config.write_timeout) =
        (Duration::from_mins(10), Duration::from_mins(10));
    let (release, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (held_by, note) = (Arc::clone(&release), Arc::clone(&waiting));
    let held = move || async move {
        note.notify_one();
        drop(held_by.acquire().await);
        "held"
    };
    let length = async |body: axum::body::Bytes| body.len().to_string();
    let routes = OpenApiRouter::new()
        // `/held` waits, and ignores the body.
        .route("/held", post(held))
        .route("/length", post(length))
        .route("/large", get(async || vec![b'x'; LARGE]));
    let mut tasks = Tasks::none();
    let inn = about("inn");
    let app = app(inn, routes, tasks.health.clone(), &config);
    let address = serve(&mut tasks, app, config).await;
    Service {
        tasks,
        address: address.trim_start_matches("http://").to_owned(),
        release,
        waiting,
    }
}

impl Service {
    /// A client that sends `bytes`, and then nothing.
    async fn client(&self, bytes: &str) -> TcpStream {
        let mut client = TcpStream::connect(&self.address).await.unwrap();
        client.write_all(bytes.as_bytes()).await.unwrap();
        client
    }
}

/// Everything that the client receives until the connection is closed.
async fn answer(client: &mut TcpStream) -> String {
    let mut answer = String::new();
    let read = client.read_to_string(&mut answer);
    let read = tokio::time::timeout(PATIENCE, read).await;
    let read = read.expect("the connection is closed");
    read.unwrap_or_else(|error| panic!("{error}, after {answer:?}"));
    answer
}

#[tokio::test]
async fn half_a_request_is_refused_at_the_stop_and_a_whole_one_ends() {
    let service = service().await;
    let mut halves = Vec::new();
    for half in [
        "POST /length HTT",
        "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-",
        "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
        "POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf ",
        "POST /length HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nGET /livez HTTP/1.1\r\nHo",
    ] {
        halves.push((half, service.client(half).await));
    }
    let mut silent = service.client("").await;
    // This request counts as whole: its handler ignores the incomplete body. It is accepted last.
    let mut whole = service
        .client("POST /held HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf ")
        .await;
    service.waiting.notified().await;
    let begun = Instant::now();
    let (tasks, release) = (service.tasks, service.release);
    let clients = async {
        for (half, client) in &mut halves {
            let text = answer(client).await;
            // The last client also gets the answer to its first request.
            let text = &text[text.rfind("HTTP/1.1 ").expect("an answer")..];
            assert!(text.starts_with("HTTP/1.1 503 "), "{half}: {text}");
            let text = text.to_lowercase();
            assert!(text.contains("\r\nconnection: close\r\n"), "{half}: {text}");
            assert!(text.contains("send it again"), "{half}: {text}");
        }
        assert_eq!(answer(&mut silent).await, "");
        assert!(begun.elapsed() < SOON, "after {:?}", begun.elapsed());
        release.add_permits(1);
        let text = answer(&mut whole).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    };
    tokio::join!(tasks.stop(), clients);
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_does_not_hold_up_the_stop() {
    let service = service().await;
    let mut client = service
        .client("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await;
    // Reads only the start of the answer.
    client.read_exact(&mut [0; 100]).await.unwrap();
    let begun = Instant::now();
    service.tasks.stop().await;
    assert!(begun.elapsed() < SOON, "after {:?}", begun.elapsed());
    drop(client);
}
