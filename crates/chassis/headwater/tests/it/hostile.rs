//! Hostile clients: the resources they can take, and the service that other clients still get.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use headwater::Clock;
use headwater::database::{self, Database};
use headwater::http::{Config, Problem, admin, app, raise_file_limit};
use reqwest::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Mutex, Notify, Semaphore};
use utoipa_axum::router::OpenApiRouter;

use crate::support::{
    MIGRATIONS, Tasks, about, eventually, folder, http_config, metrics, serve, serve_on,
};

/// Larger than the kernel's buffers.
const LARGE: usize = 1024 * 1024;

/// The addresses of honest and of hostile clients.
const HONEST: [u8; 4] = [127, 0, 0, 1];
const HOSTILE: [u8; 4] = [127, 0, 0, 2];

struct Service {
    tasks: Tasks,
    public: SocketAddr,
    admin: String,
    /// `/held` notifies `waiting`, then answers once it gets a permit.
    release: Arc<Semaphore>,
    waiting: Arc<Notify>,
}

async fn service(change: impl FnOnce(&mut Config)) -> Service {
    let mut config = http_config();
    change(&mut config);
    let (release, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (held_by, note) = (Arc::clone(&release), Arc::clone(&waiting));
    let shared = Bytes::from(vec![b'x'; LARGE]);
    let routes = OpenApiRouter::new()
        .route("/small", get(async || "small"))
        .route("/shared", get(async move || shared.clone()))
        .route("/fresh", get(async || vec![b'x'; LARGE]))
        .route("/panic", get(async || -> &'static str { panic!("a bug") }))
        .route(
            "/who",
            get(
                async |axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<SocketAddr>| {
                    peer.to_string()
                },
            ),
        )
        .route(
            "/refused",
            get(async || Problem::conflict("a problem of the service")),
        )
        .route(
            "/held",
            get(move || async move {
                note.notify_one();
                drop(held_by.acquire().await);
                "held"
            }),
        );
    let fort = about("fort");
    let mut tasks = Tasks::none();
    let app = app(fort, routes, tasks.health.clone(), &config);
    let admin_app = admin(about("fort"), tasks.health.clone(), &config);
    let admin = serve(&mut tasks, admin_app, http_config()).await;
    // The first request starts the metrics.
    metrics(&admin).await;
    let public = serve(&mut tasks, app, config).await;
    Service {
        tasks,
        public: public.trim_start_matches("http://").parse().unwrap(),
        admin,
        release,
        waiting,
    }
}

impl Service {
    /// A connection from `from` with a small receive buffer.
    async fn connect(&self, from: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.bind(SocketAddr::from((from, 0))).unwrap();
        socket.connect(self.public).await.unwrap()
    }

    /// A connection from `from` with a request for `path`.
    async fn ask(&self, from: [u8; 4], path: &str) -> TcpStream {
        let mut stream = self.connect(from).await;
        stream.write_all(&request(path)).await.unwrap();
        stream
    }

    /// The answer to an honest client, on a new connection.
    async fn get(&self, path: &str) -> reqwest::Result<(StatusCode, usize)> {
        let answer = Client::new()
            .get(format!("http://{}{path}", self.public))
            .send()
            .await?;
        let status = answer.status();
        Ok((status, answer.bytes().await?.len()))
    }

    /// Answers that nobody takes, one more than the share of an address of 16 MiB: two.
    async fn untaken(&self) -> Vec<TcpStream> {
        let mut hostile = Vec::new();
        for _ in 0..3 {
            let mut stream = self.ask(HOSTILE, "/fresh").await;
            assert_eq!(status(&mut stream).await.as_deref(), Some("200"));
            hostile.push(stream);
        }
        eventually("its answers count as not taken", async || {
            let mut small = self.ask(HOSTILE, "/small").await;
            let answer = tokio::time::timeout(Duration::from_millis(50), status(&mut small));
            if answer.await.is_err() {
                Ok(())
            } else {
                Err("answered")
            }
        })
        .await;
        hostile
    }

    /// How often connections were closed for `reason`.
    async fn closed(&self, reason: &str) -> u64 {
        let name = format!("headwater_http_connections_closed_total{{reason=\"{reason}\"}}");
        metrics(&self.admin).await[&name]
    }
}

fn request(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// The status of the answer on `stream`; `None` if the server closes it instead.
async fn status(stream: &mut TcpStream) -> Option<String> {
    let mut line = [0; 12];
    stream.read_exact(&mut line).await.ok()?;
    Some(String::from_utf8_lossy(&line[9..]).into_owned())
}

/// Whether the server has dropped `stream`. A reset may not reach a client whose receive window is
/// full; sending to a server that has dropped the connection provokes one.
fn is_reset(stream: &TcpStream) -> bool {
    let written = stream.try_write(b"x");
    let is_open = match written {
        Ok(_) => true,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    };
    !is_open || stream.take_error().unwrap().is_some()
}

/// Waits until the server has dropped all `streams`.
async fn all_reset(mut streams: Vec<TcpStream>) {
    eventually("all of them are closed", async || {
        streams.retain(|stream| !is_reset(stream));
        if streams.is_empty() {
            Ok(())
        } else {
            Err(streams.len())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_are_closed_and_keep_nobody_out() {
    // Enough open files for both ends of all connections.
    raise_file_limit();
    let service = service(|config| {
        config.connections = 1024;
        config.connections_per_address = 1024;
        config.write_timeout = Duration::from_secs(2);
    })
    .await;
    let pipelined = request("/shared").repeat(4);
    let mut hostile = Vec::new();
    for _ in 0..1030 {
        let mut stream = service.connect(HOSTILE).await;
        stream.write_all(&pipelined).await.unwrap();
        hostile.push(stream);
    }
    let ready = format!("{}/readyz", service.admin);
    assert_eq!(reqwest::get(&ready).await.unwrap().status(), StatusCode::OK);
    let answer = service.get("/small").await.unwrap();
    assert_eq!(answer, (StatusCode::OK, 5));
    all_reset(hostile).await;
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_its_answer_a_little_at_a_time_is_closed() {
    let service = service(|config| config.write_timeout = Duration::from_secs(1)).await;
    let before = service.closed("slow").await;
    let mut slow = service.ask(HOSTILE, "/fresh").await;
    let mut little = [0; 64];
    eventually("the slow client is closed", async || {
        // What arrived before can still be read.
        let read = slow.read_exact(&mut little).await;
        if is_reset(&slow) { Ok(()) } else { Err(read) }
    })
    .await;
    assert!(service.closed("slow").await > before);
    // A client that reads the whole answer is not closed, although the answer exceeds the kernel's
    // buffers.
    assert_eq!(service.get("/fresh").await.unwrap().1, LARGE);
    service.tasks.stop().await;
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_another_and_one_with_a_request_does_not() {
    let service = service(|config| {
        config.connections = 2;
        config.header_timeout = Duration::from_mins(1);
    })
    .await;
    let mut idle = service.ask(HONEST, "/small").await;
    assert_eq!(status(&mut idle).await.as_deref(), Some("200"));
    let mut busy = service.ask(HONEST, "/held").await;
    service.waiting.notified().await;
    let mut third = service.ask(HONEST, "/held").await;
    service.waiting.notified().await;
    let mut rest = Vec::new();
    // A reset counts as closed.
    let _ = idle.read_to_end(&mut rest).await;
    // Two requests are in progress: a fourth client waits for one of them.
    let mut fourth = service.ask(HONEST, "/small").await;
    let early = tokio::time::timeout(Duration::from_millis(200), status(&mut fourth));
    assert!(early.await.is_err(), "served next to two others");
    service.release.add_permits(2);
    for served in [&mut busy, &mut third, &mut fourth] {
        assert_eq!(status(served).await.as_deref(), Some("200"));
    }
    service.tasks.stop().await;
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_its_share() {
    let service = service(|config| config.connections_per_address = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(service.ask(HOSTILE, "/held").await);
        service.waiting.notified().await;
    }
    let mut third = service.ask(HOSTILE, "/small").await;
    assert_eq!(
        status(&mut third).await,
        None,
        "a third connection of the same address"
    );
    assert!(service.closed("refused").await >= 1);
    assert_eq!(service.get("/small").await.unwrap().0, StatusCode::OK);
    service.release.add_permits(2);
    for held in &mut held {
        assert_eq!(status(held).await.as_deref(), Some("200"));
    }
    // Both are idle now: a new connection replaces one of them.
    let mut next = service.ask(HOSTILE, "/small").await;
    assert_eq!(status(&mut next).await.as_deref(), Some("200"));
    service.tasks.stop().await;
}

#[tokio::test]
async fn answers_that_nobody_takes_hold_no_more_than_they_may() {
    let service = service(|config| {
        config.connections = 64;
        config.buffer_mib = 8;
    })
    .await;
    let mut hostile = Vec::new();
    let mut refused = 0;
    while refused == 0 {
        assert!(hostile.len() < 40, "40 MiB are buffered");
        // Each address has its share.
        let from = [127, 0, 1, u8::try_from(hostile.len()).unwrap()];
        let mut stream = service.ask(from, "/fresh").await;
        match status(&mut stream).await.as_deref() {
            Some("200") => hostile.push(stream),
            other => {
                assert_eq!(other, Some("503"));
                refused += 1;
            }
        }
    }
    // Small answers have room, and large answers once the clients that read nothing are known.
    assert_eq!(service.get("/small").await.unwrap(), (StatusCode::OK, 5));
    eventually("a large answer has room", async || {
        let answer = service.get("/fresh").await;
        if matches!(answer, Ok((StatusCode::OK, LARGE))) {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
    drop(hostile);
    service.tasks.stop().await;
}

#[tokio::test]
async fn an_address_that_does_not_take_its_answers_gets_no_more() {
    let service = service(|config| {
        config.buffer_mib = 16;
        config.write_timeout = Duration::from_secs(20);
    })
    .await;
    let mut hostile = service.untaken().await;
    let mut further = service.ask(HOSTILE, "/held").await;
    assert_eq!(
        service.get("/fresh").await.unwrap(),
        (StatusCode::OK, LARGE)
    );
    assert_eq!(status(&mut further).await.as_deref(), Some("503"));
    let begun = tokio::time::timeout(Duration::from_millis(10), service.waiting.notified());
    assert!(begun.await.is_err(), "its handler has begun");
    // As soon as one of them takes its answer, the address has its share again.
    let mut next = service.ask(HOSTILE, "/small").await;
    let mut taken = hostile.pop().unwrap();
    let mut answer = vec![0; LARGE];
    taken.read_exact(&mut answer).await.unwrap();
    assert_eq!(status(&mut next).await.as_deref(), Some("200"));
    drop(hostile);
    service.tasks.stop().await;
}

/// Clients that ask and leave would otherwise cause work long after they are gone.
#[tokio::test]
async fn a_request_that_waited_is_not_begun_if_its_client_is_gone() {
    let service = service(|config| {
        config.buffer_mib = 16;
        config.write_timeout = Duration::from_secs(20);
    })
    .await;
    let hostile = service.untaken().await;
    let mut gone = service.ask(HOSTILE, "/held").await;
    // hyper does not see the end behind it.
    gone.write_all(b"x").await.unwrap();
    drop(gone);
    // It is looked at twice.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let mut small = service.ask(HOSTILE, "/small").await;
    drop(hostile);
    assert_eq!(status(&mut small).await.as_deref(), Some("200"));
    let begun = tokio::time::timeout(Duration::from_secs(2), service.waiting.notified());
    assert!(begun.await.is_err(), "its handler has begun");
    service.tasks.stop().await;
}

#[tokio::test]
async fn an_address_whose_clients_were_closed_has_debt() {
    let service = service(|config| {
        config.connections = 128;
        config.connections_per_address = 128;
        config.buffer_mib = 8;
        config.write_timeout = Duration::from_millis(500);
    })
    .await;
    let mut hostile = Vec::new();
    for _ in 0..40 {
        hostile.push(service.ask(HOSTILE, "/shared").await);
    }
    all_reset(hostile).await;
    // Nothing is buffered for it any more, but it has to wait.
    let mut further = service.ask(HOSTILE, "/held").await;
    let begun = tokio::time::timeout(Duration::from_millis(500), service.waiting.notified());
    assert!(begun.await.is_err(), "its handler has begun");
    assert_eq!(service.get("/fresh").await.unwrap().0, StatusCode::OK);
    service.release.add_permits(1);
    assert_eq!(status(&mut further).await.as_deref(), Some("200"));
    service.tasks.stop().await;
}

#[tokio::test]
async fn an_answer_that_goes_to_many_is_held_once() {
    let service = service(|config| {
        config.connections = 64;
        config.buffer_mib = 16;
    })
    .await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = service.ask(HOSTILE, "/shared").await;
        assert_eq!(status(&mut stream).await.as_deref(), Some("200"));
        streams.push(stream);
    }
    service.tasks.stop().await;
}

/// The status of the answer to a request whose head is `head`.
async fn answer(service: &Service, head: &str) -> String {
    let mut stream = service.connect(HONEST).await;
    let head = format!("{head}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    status(&mut stream).await.unwrap()
}

#[tokio::test]
async fn a_service_answers_for_its_own_names_only() {
    let service = service(|config| {
        config.public_host = vec!["Shop.Example".to_owned(), "192.0.2.1".to_owned()];
    })
    .await;
    for (host, wanted) in [
        ("localhost", "200"),
        ("LocalHost:8080", "200"),
        ("localhost.", "200"),
        ("shop.localhost:1", "200"),
        ("127.0.0.1:8080", "200"),
        ("127.9.9.9", "200"),
        ("[::1]:8080", "200"),
        ("[::ffff:127.0.0.1]", "200"),
        ("shop.example", "200"),
        ("SHOP.example:443", "200"),
        ("192.0.2.1", "200"),
        ("192.0.2.2", "421"),
        ("0.0.0.0", "421"),
        ("127.1", "421"),
        ("2130706433", "421"),
        ("evil.example", "421"),
        ("evil.example:8080", "421"),
        ("a.shop.example", "421"),
        ("localhost.evil.example", "421"),
        ("127.0.0.1.evil.example", "421"),
        ("evillocalhost", "421"),
        ("", "400"),
        ("localhost@evil.example", "400"),
        ("a@localhost", "400"),
        ("local host", "400"),
        ("localhost, evil.example", "400"),
        ("localhost/", "400"),
    ] {
        let head = format!("GET /small HTTP/1.1\r\nHost: {host}");
        assert_eq!(answer(&service, &head).await, wanted, "`{host}`");
        let old = format!("GET /small HTTP/1.0\r\nHost: {host}");
        assert_eq!(answer(&service, &old).await, wanted, "`{host}`, HTTP/1.0");
    }
    let twice = "GET /small HTTP/1.1\r\nHost: localhost\r\nHost: localhost";
    for (head, wanted) in [
        ("GET /small HTTP/1.1", "400"),
        ("GET /small HTTP/1.0", "400"),
        (twice, "400"),
        ("GET /nothing HTTP/1.1\r\nHost: evil.example", "421"),
        ("GET /docs HTTP/1.1\r\nHost: evil.example", "421"),
        ("GET /readyz HTTP/1.1\r\nHost: evil.example", "421"),
        (
            "GET http://localhost/small HTTP/1.1\r\nHost: localhost",
            "200",
        ),
        (
            "GET http://evil.example/small HTTP/1.1\r\nHost: localhost",
            "421",
        ),
        (
            "GET http://localhost/small HTTP/1.1\r\nHost: evil.example",
            "421",
        ),
        (
            "GET http://a@localhost/small HTTP/1.1\r\nHost: localhost",
            "400",
        ),
    ] {
        assert_eq!(answer(&service, head).await, wanted, "`{head}`");
    }
    let rebound = Client::new().get(format!("{}/metrics", service.admin));
    let rebound = rebound.header("host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status(), StatusCode::MISDIRECTED_REQUEST);
    service.tasks.stop().await;
}

#[tokio::test]
async fn the_address_that_was_connected_to_is_a_name_of_the_service() {
    let service = service(|config| config.public_host = Vec::new()).await;
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = service.tasks;
    let config = http_config();
    let app = admin(about("fort"), tasks.health.clone(), &config);
    serve_on(&mut tasks, listener, app, config);
    // Not a loopback address, if this machine has another one.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = probe
        .connect("192.0.2.1:9")
        .and_then(|()| probe.local_addr())
        .map_or(std::net::IpAddr::from(HONEST), |own| own.ip());
    for (host, wanted) in [(own.to_string(), 200), ("192.0.2.7".to_owned(), 421)] {
        let asked = Client::new().get(format!("http://{own}:{port}/livez"));
        let answer = asked.header("host", host).send().await.unwrap();
        assert_eq!(answer.status(), wanted);
    }
    tasks.stop().await;
}

#[tokio::test]
async fn every_answer_has_headers_for_browsers() {
    let service = service(|config| config.timeout = Duration::from_secs(1)).await;
    for path in [
        "/small",
        "/shared",
        "/docs",
        "/docs/",
        "/openapi.json",
        "/livez",
        "/readyz",
        "/nothing",
        "/panic",
        "/refused",
        "/held",
        "/small?a=b",
    ] {
        let client = Client::builder().redirect(reqwest::redirect::Policy::none());
        let asked = client.build().unwrap();
        let asked = asked.get(format!("http://{}{path}", service.public));
        let answer = asked.send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("referrer-policy"), "same-origin", "{path}");
        let policy = header("content-security-policy");
        for directive in ["default-src 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(directive), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
    }
    service.tasks.stop().await;
}

#[tokio::test]
async fn handlers_know_their_peer() {
    let service = service(|_| ()).await;
    let mut stream = service.ask(HOSTILE, "/who").await;
    let own = stream.local_addr().unwrap().to_string();
    eventually("the answer names the peer", async || {
        let mut bytes = [0; 1024];
        let length = stream.read(&mut bytes).await.unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text.contains(&own) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    service.tasks.stop().await;
}

/// Reads of a database wait for a thread. The client addresses take turns: many reads of one client
/// delay another by a read or two, not by all of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_reads_of_one_address_do_not_wait_behind_all_of_another() {
    let folder = folder();
    let mut config = database::Config::at(folder.path().join("fort.db"));
    config.readers = 1;
    let db = Database::open("fort", &config, MIGRATIONS, Clock::system());
    let db = db.await.unwrap();
    let order: Arc<Mutex<Vec<IpAddr>>> = Arc::default();
    let (asked, seen) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&order));
    let note = Arc::clone(&asked);
    let route = get(
        async move |axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<SocketAddr>| {
            note.fetch_add(1, Ordering::Relaxed);
            let read = db.read(move |_| {
                seen.blocking_lock().push(peer.ip());
                Ok::<_, Problem>(())
            });
            read.await.map(|()| "read")
        },
    );
    let (tasks, public) = serve_one(route).await;
    let ask = async |from: [u8; 4], count: usize| {
        let mut stream = connect(public, from).await;
        stream.write_all(&request("/")).await.unwrap();
        eventually("the request", async || {
            let now = asked.load(Ordering::Relaxed);
            if now == count { Ok(()) } else { Err(now) }
        })
        .await;
        stream
    };

    let held = order.lock().await;
    let mut clients = Vec::new();
    for count in 1..=10 {
        clients.push(ask(HOSTILE, count).await);
    }
    let mut honest = ask(HONEST, 11).await;
    drop(held);
    assert_eq!(status(&mut honest).await.as_deref(), Some("200"));
    let order = order.lock().await.clone();
    let place = order.iter().position(|from| *from == IpAddr::from(HONEST));
    assert!(place.unwrap() < 4, "{order:?}");
    tasks.stop().await;
}

/// A service with `route` at `/`, and its address.
async fn serve_one(route: MethodRouter) -> (Tasks, SocketAddr) {
    let mut tasks = Tasks::none();
    let routes = OpenApiRouter::new().route("/", route);
    let fort = about("fort");
    let mut config = http_config();
    config.connections = 256;
    let app = app(fort, routes, tasks.health.clone(), &config);
    let public = serve(&mut tasks, app, config).await;
    (tasks, public.trim_start_matches("http://").parse().unwrap())
}

async fn connect(public: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((from, 0))).unwrap();
    socket.connect(public).await.unwrap()
}

/// Client addresses take turns on the processor: a burst of one address delays another by a few
/// pieces of work, not by all of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_work_for_one_address_does_not_wait_behind_all_of_another() {
    const BURST: usize = 60;
    let (gate, arrived) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let order: Arc<StdMutex<Vec<IpAddr>>> = Arc::default();
    let (held_by, note, seen) = (Arc::clone(&gate), Arc::clone(&arrived), Arc::clone(&order));
    let work = get(
        async move |axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<SocketAddr>| {
            note.fetch_add(1, Ordering::Relaxed);
            drop(held_by.acquire().await);
            // A piece of work, as for a large answer: it blocks the thread.
            std::thread::sleep(Duration::from_millis(5));
            seen.lock().unwrap().push(peer.ip());
            "done"
        },
    );
    let (tasks, public) = serve_one(work).await;
    let mut clients = Vec::new();
    // The honest client is not the last: the runtime may prefer the last one.
    for from in [[HOSTILE; BURST].as_slice(), &[HONEST], &[HOSTILE; 4]].concat() {
        let mut client = connect(public, from).await;
        client.write_all(&request("/")).await.unwrap();
        clients.push(client);
        eventually("the request", async || {
            let now = arrived.load(Ordering::Relaxed);
            if now == clients.len() {
                Ok(())
            } else {
                Err(now)
            }
        })
        .await;
    }
    gate.close();
    assert_eq!(status(&mut clients[BURST]).await.as_deref(), Some("200"));
    let order = order.lock().unwrap().clone();
    let place = order.iter().position(|from| *from == IpAddr::from(HONEST));
    assert!(place.unwrap() < BURST / 3, "{order:?}");
    tasks.stop().await;
}
