//! HTTP: limits, problems, and what every service answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use axum::routing::{get, post};
use headwater::health::State;
use headwater::http::{
    After, Answer, Config, IdempotencyKey, Invalid, Json, Path, Problem, admin, app, with_position,
};
use headwater::projection::Behind;
use headwater::{Position, Positions};
use reqwest::{Client, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::support::{Tasks, about, eventually, http_config, metrics, serve};

#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct Reading {
    value: i64,
}

/// Keeps a reading
#[utoipa::path(post, path = "/readings", request_body = Reading, responses((status = 201)))]
async fn keep(
    key: IdempotencyKey,
    Json(reading): Json<Reading>,
) -> Result<axum::response::Response, Problem> {
    let mut invalid = Invalid::none();
    invalid.require(reading.value >= 0, "/value", "must not be below zero");
    invalid.require(reading.value != -7, "/value", "must not be minus seven");
    invalid.check()?;
    let position = Position {
        source: "sensors".to_owned(),
        position: 12,
    };
    let key = key.scoped("POST /readings").text;
    let answer = Answer::created("/readings/1".to_owned(), position, &json!({ "key": key }));
    Ok(axum::response::IntoResponse::into_response(answer))
}

/// Reads
#[utoipa::path(get, path = "/behind", params(After), responses((status = 200)))]
async fn behind(After(after): After) -> Result<axum::response::Response, Problem> {
    if after.get("sensors") > 100 {
        let at = Positions::default();
        return Err(Behind::NotYet { at, asked: after }.into());
    }
    Ok(with_position(&after, "read"))
}

async fn by_id(Path(id): Path<uuid::Uuid>) -> String {
    id.to_string()
}

/// A made-up service. Requests to `/held` notify `waiting`, then wait for `release`.
struct Service {
    tasks: Tasks,
    address: String,
    /// The address of health and metrics.
    admin: String,
    client: Client,
    release: Arc<Semaphore>,
    waiting: Arc<Notify>,
}

async fn service(change: impl FnOnce(&mut Config)) -> Service {
    let mut config = http_config();
    change(&mut config);
    let (release, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (held_by, note) = (Arc::clone(&release), Arc::clone(&waiting));
    let held = move || async move {
        note.notify_one();
        drop(held_by.acquire().await);
        "held"
    };
    let routes = OpenApiRouter::new()
        .routes(routes!(keep))
        .routes(routes!(behind))
        .route("/by/{id}", get(by_id))
        .route(
            "/panic",
            get(async || -> &'static str { panic!("a bug in a request") }),
        )
        .route("/held", get(held))
        .route(
            "/raw",
            post(async |body: axum::body::Bytes| body.len().to_string()),
        );
    let mut tasks = Tasks::none();
    let house = about("house");
    let app = app(house, routes, tasks.health.clone(), &config);
    let admin_app = admin(about("house"), tasks.health.clone(), &config);
    let admin = serve(&mut tasks, admin_app, config.clone()).await;
    let address = serve(&mut tasks, app, config).await;
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(10));
    Service {
        tasks,
        address,
        admin,
        client: client.build().unwrap(),
        release,
        waiting,
    }
}

impl Service {
    async fn get(&self, path: &str) -> Response {
        self.client
            .get(format!("{}{path}", self.address))
            .send()
            .await
            .unwrap()
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Response {
        let post = self
            .client
            .post(format!("{}{path}", self.address))
            .body(body);
        post.header("content-type", "application/json")
            .send()
            .await
            .unwrap()
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address.trim_start_matches("http://"))
            .await
            .unwrap()
    }
}

/// The problem in an answer, which must be one.
async fn problem(answer: Response, status: u16, kind: &str) -> Value {
    assert_eq!(answer.status(), status);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(
        problem["type"],
        format!("urn:headwater:problem:{kind}"),
        "{problem}"
    );
    assert_eq!(problem["status"], status);
    assert!(!problem["title"].as_str().unwrap().is_empty());
    assert!(!problem["detail"].as_str().unwrap().is_empty());
    problem
}

/// Reads until the server closes; returns how long that took.
async fn until_closed(stream: &mut TcpStream) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    // A reset counts as closed.
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
    drop(read.expect("the server closes the connection"));
    started.elapsed()
}

#[tokio::test]
async fn a_client_that_sends_no_head_is_closed() {
    let service = service(|_| ()).await;
    let mut silent = service.connect().await;
    let mut half = service.connect().await;
    half.write_all(b"GET /livez HTTP/1.1\r\nHost: ")
        .await
        .unwrap();
    let mut idle = service.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let (silent, half, idle) = tokio::join!(
        until_closed(&mut silent),
        until_closed(&mut half),
        until_closed(&mut idle)
    );
    for closed in [silent, half, idle] {
        assert!(closed < Duration::from_secs(5), "after {closed:?}");
    }
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_a_byte_now_and_then_is_closed() {
    let service = service(|_| ()).await;
    let mut slow = service.connect().await;
    slow.set_nodelay(true).unwrap();
    let mut head = b"GET /livez HTTP/1.1\r\nX-Long: "
        .iter()
        .chain(std::iter::repeat(&b'x'));
    let mut buffer = [0; 64];
    eventually("the slow client is closed", async || {
        let byte = *head.next().unwrap();
        if slow.write_all(&[byte]).await.is_err() {
            return Ok(());
        }
        match slow.try_read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err("open"),
            Ok(1..) => Err("answered"),
            _ => Ok(()),
        }
    })
    .await;
    service.tasks.stop().await;
}

#[tokio::test]
async fn connections_that_are_open_at_the_stop_get_one_more_answer_which_closes_them() {
    const REQUEST: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let service = service(|_| ()).await;
    let address = service.address.trim_start_matches("http://").to_owned();
    // `used` has served a request. `silent` has only been accepted, which is certain because `used`
    // was accepted after it.
    let (mut silent, mut used) = (service.connect().await, service.connect().await);
    used.write_all(REQUEST).await.unwrap();
    let mut answer = vec![0; 1024];
    let length = used.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(!answer.contains("connection: close"), "{answer}");
    let clients = async {
        eventually(
            "the listener is closed",
            async || match TcpStream::connect(&address).await {
                Err(_) => Ok(()),
                Ok(_) => Err("open"),
            },
        )
        .await;
        for open in [&mut silent, &mut used] {
            open.write_all(REQUEST).await.unwrap();
            let mut answer = String::new();
            open.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    };
    tokio::join!(service.tasks.stop(), clients);
}

#[tokio::test]
async fn every_way_of_asking_wrongly_is_a_problem() {
    let service = service(|_| ()).await;
    let s = &service;
    problem(s.get("/nothing").await, 404, "not-found").await;
    problem(s.get("/docs/nothing").await, 404, "not-found").await;
    let wrong_method = s.get("/readings").await;
    assert_eq!(wrong_method.headers()["allow"], "POST");
    problem(wrong_method, 405, "method-not-allowed").await;
    let wrong_method = s.post("/livez", "").await;
    assert_eq!(wrong_method.headers()["allow"], "GET,HEAD");
    problem(wrong_method, 405, "method-not-allowed").await;
    problem(s.post("/readings", "{").await, 400, "malformed-json").await;
    problem(s.post("/readings", "").await, 400, "malformed-json").await;
    let large = format!("{{\"value\":{}1}}", " ".repeat(300 * 1024));
    problem(
        s.post("/readings", large.clone()).await,
        413,
        "body-too-large",
    )
    .await;
    problem(s.post("/raw", large).await, 413, "body-too-large").await;
    let text = s
        .client
        .post(format!("{}/readings", s.address))
        .body("{\"value\":1}");
    problem(text.send().await.unwrap(), 415, "unsupported-content-type").await;
    let unknown = s.post("/readings", r#"{"value":1,"colour":"red"}"#).await;
    let unknown = problem(unknown, 422, "invalid-field").await;
    assert!(
        unknown["detail"].as_str().unwrap().contains("colour"),
        "{unknown}"
    );
    problem(s.post("/readings", "{}").await, 422, "invalid-field").await;
    problem(s.get("/by/me").await, 400, "bad-request").await;
    problem(
        s.get("/readyz?verbose=1&verbose=2").await,
        400,
        "bad-request",
    )
    .await;
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_query_parameter_that_an_address_does_not_take_is_refused() {
    let service = service(|_| ()).await;
    let s = &service;
    for (path, takes) in [
        ("/behind?aftr=sensors:7", "after"),
        ("/behind?after=sensors:7&%61ftr=", "after"),
        ("/readyz?verbose&aftr", "verbose"),
        ("/livez?aftr", "none"),
        ("/openapi.json?aftr=1", "none"),
        ("/docs?aftr=1", "none"),
        ("/docs/?aftr=1", "none"),
        // Undocumented, so without parameters.
        ("/panic?aftr=1", "none"),
    ] {
        let refused = problem(s.get(path).await, 400, "unknown-parameter").await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("`aftr`"), "{path}: {detail}");
        assert!(
            detail.ends_with(&format!("takes {takes}")),
            "{path}: {detail}"
        );
    }
    let posted = s.post("/readings?aftr=1", r#"{"value":1}"#).await;
    problem(posted, 400, "unknown-parameter").await;
    let head = s.client.head(format!("{}/behind?aftr=1", s.address));
    assert_eq!(head.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    // Earlier errors take precedence.
    problem(s.get("/readings?aftr=1").await, 405, "method-not-allowed").await;
    problem(s.get("/nothing?aftr=1").await, 404, "not-found").await;
    for right in ["/behind?", "/behind?after=sensors:7", "/readyz?verbose"] {
        assert_eq!(s.get(right).await.status(), StatusCode::OK, "{right}");
    }
    service.tasks.stop().await;
}

#[tokio::test]
async fn every_operation_documents_the_errors_that_it_shares_with_all() {
    let service = service(|_| ()).await;
    let document: Value = service.get("/openapi.json").await.json().await.unwrap();
    for (path, method, statuses) in [
        (
            "/readings",
            "post",
            "201 400 413 414 415 421 422 431 500 503",
        ),
        ("/behind", "get", "200 400 414 421 431 500 503"),
        ("/livez", "get", "200 400 414 421 431 500 503"),
    ] {
        let responses = document["paths"][path][method]["responses"].as_object();
        let documented: Vec<_> = responses.unwrap().keys().map(String::as_str).collect();
        assert_eq!(documented.join(" "), statuses, "{method} {path}");
        let problem = &responses.unwrap()["400"]["content"]["application/problem+json"];
        let schema = &problem["schema"]["$ref"];
        assert_eq!(schema, "#/components/schemas/Problem", "{method} {path}");
        let headers = &responses.unwrap()["503"]["headers"];
        assert!(headers["Retry-After"].is_object(), "{method} {path}");
    }
    assert!(document["components"]["schemas"]["FieldError"].is_object());
    service.tasks.stop().await;
}

#[tokio::test]
async fn all_that_is_wrong_with_the_fields_is_said_at_once() {
    let service = service(|_| ()).await;
    let wrong = service.post("/readings", r#"{"value":-7}"#).await;
    let wrong = problem(wrong, 422, "invalid-field").await;
    assert_eq!(
        wrong["errors"],
        json!([
            { "pointer": "/value", "detail": "must not be below zero" },
            { "pointer": "/value", "detail": "must not be minus seven" },
        ])
    );
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_panic_is_our_fault_and_says_nothing() {
    let service = service(|_| ()).await;
    let answer = problem(service.get("/panic").await, 500, "internal-error").await;
    assert!(!answer.to_string().contains("bug"), "{answer}");
    assert_eq!(service.get("/livez").await.status(), StatusCode::OK);
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_a_problem() {
    let service = service(|config| config.timeout = Duration::from_secs(1)).await;
    let late = service.get("/held").await;
    assert_eq!(late.headers()["retry-after"], "1");
    problem(late, 503, "unavailable").await;

    let mut slow_body = service.connect().await;
    let head = "POST /readings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 11\r\n\r\n{";
    slow_body.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    let answered = slow_body.read_exact(&mut answer);
    let in_time = tokio::time::timeout(Duration::from_secs(10), answered).await;
    in_time.expect("an answer").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    service.tasks.stop().await;
}

#[tokio::test]
async fn health_tells_whether_and_why() {
    let service = service(|_| ()).await;
    let health = &service.tasks.health;
    assert_eq!(service.get("/livez").await.status(), StatusCode::OK);
    assert_eq!(service.get("/readyz").await.status(), StatusCode::OK);
    for path in ["/livez", "/readyz", "/metrics", "/docs"] {
        let answer = reqwest::get(format!("{}{path}", service.admin)).await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK, "{path}");
    }
    problem(service.get("/metrics").await, 404, "not-found").await;
    health.set("relay", State::Degraded("waiting".to_owned()));
    assert_eq!(
        service.get("/readyz").await.status(),
        StatusCode::OK,
        "it serves what it can"
    );
    health.set("disk", State::Failed("full".to_owned()));
    assert_eq!(
        service.get("/readyz").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    let verbose = service.get("/readyz?verbose").await;
    assert_eq!(verbose.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        verbose.json::<Value>().await.unwrap(),
        json!({
            "relay": { "state": "degraded", "detail": "waiting" },
            "disk": { "state": "failed", "detail": "full" },
        })
    );
    assert_eq!(
        service.get("/livez").await.status(),
        StatusCode::OK,
        "a restart would not help"
    );
    service.tasks.stop().await;
}

#[tokio::test]
async fn metrics_have_our_names_and_few_labels() {
    let service = service(|_| ()).await;
    metrics(&service.admin).await;
    service
        .get("/by/01956ec0-39d7-71b5-bb23-3671e1893844")
        .await;
    service.get("/nothing/of/mine").await;
    for made_up in ["AAA", "BBB"] {
        let method = reqwest::Method::from_bytes(made_up.as_bytes()).unwrap();
        service
            .client
            .request(method, format!("{}/livez", service.address))
            .send()
            .await
            .unwrap();
    }
    let metrics = metrics(&service.admin).await;
    let ours: Vec<&String> = metrics
        .keys()
        .filter(|name| name.starts_with("headwater_http_request_seconds_count"))
        .filter(|name| name.contains("service=\"house\""))
        .collect();
    let has = |text: &str| ours.iter().any(|name| name.contains(text));
    assert!(has("route=\"/by/{id}\""), "{ours:?}");
    assert!(has("route=\"none\""), "{ours:?}");
    assert!(
        !has("AAA") && !has("BBB") && !has("/nothing/of/mine"),
        "{ours:?}"
    );
    service.tasks.stop().await;
}

#[tokio::test]
async fn the_service_documents_itself() {
    let service = service(|_| ()).await;
    let openapi: Value = service.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(openapi["info"]["title"], "Headwater house");
    assert_eq!(openapi["info"]["description"], "A service of a test.");
    assert_eq!(openapi["info"]["version"], "1.0.0");
    assert!(
        openapi["paths"]["/readings"]["post"].is_object(),
        "{openapi}"
    );
    let page = service
        .client
        .get(format!("{}/docs", service.address))
        .send()
        .await
        .unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    let page = page.text().await.unwrap();
    for shown in [
        "A service of a test.",
        "POST /readings",
        "Keeps a reading",
        "Headwater-Position",
    ] {
        assert!(page.contains(shown), "no {shown} in {page}");
    }
    assert!(!page.contains("<script"), "{page}");
    let with_slash = service.get("/docs/").await;
    assert_eq!(with_slash.headers()["location"], "/docs");
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_create_answers_with_location_and_position() {
    let service = service(|_| ()).await;
    let post = service.client.post(format!("{}/readings", service.address));
    let created = post
        .json(&json!({ "value": 1 }))
        .header("Idempotency-Key", " k ");
    let created = created.send().await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(created.headers()["location"], "/readings/1");
    assert_eq!(created.headers()["headwater-position"], "sensors:12");
    assert_eq!(created.headers()["content-type"], "application/json");
    assert_eq!(
        created.json::<Value>().await.unwrap(),
        json!({ "key": "k" })
    );
    service.tasks.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_is_bounded() {
    let service = service(|_| ()).await;
    for wrong in [String::new(), "x".repeat(256)] {
        let post = service.client.post(format!("{}/readings", service.address));
        let wrong = post
            .json(&json!({ "value": 1 }))
            .header("Idempotency-Key", wrong);
        problem(wrong.send().await.unwrap(), 400, "bad-request").await;
    }
    let two = service.client.post(format!("{}/readings", service.address));
    let two = two.json(&json!({ "value": 1 }));
    let two = two
        .header("Idempotency-Key", "a")
        .header("Idempotency-Key", "a");
    let two = problem(two.send().await.unwrap(), 400, "bad-request").await;
    assert!(two["detail"].as_str().unwrap().contains("several"), "{two}");
    service.tasks.stop().await;
}

#[tokio::test]
async fn after_is_read_from_the_query_and_the_header() {
    let service = service(|_| ()).await;
    let ask = async |query: &str, header: Option<&str>| {
        let mut get = service
            .client
            .get(format!("{}/behind{query}", service.address));
        if let Some(header) = header {
            get = get.header("Headwater-Position", header);
        }
        get.send().await.unwrap()
    };
    for (query, header, wanted) in [
        ("", None, ""),
        ("?after=sensors:7", None, "sensors:7"),
        ("?after=sensors:7,gauges:2", None, "gauges:2,sensors:7"),
        ("", Some("sensors:9"), "sensors:9"),
        (
            "?after=sensors:7",
            Some("sensors:9,gauges:1"),
            "gauges:1,sensors:9",
        ),
    ] {
        let answer = ask(query, header).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["headwater-position"], wanted);
    }
    for (query, header) in [
        ("?after=", None),
        ("?after=sensors", None),
        ("", Some("x:y")),
    ] {
        problem(ask(query, header).await, 400, "bad-request").await;
    }
    let lines = service.client.get(format!("{}/behind", service.address));
    let lines = lines.header("Headwater-Position", "sensors:9,gauges:1");
    let lines = lines.header("Headwater-Position", "gauges:3").send().await;
    let position = lines.unwrap().headers()["headwater-position"].clone();
    assert_eq!(position, "gauges:3,sensors:9", "several lines are one list");
    let late = ask("?after=sensors:101", None).await;
    assert_eq!(late.headers()["retry-after"], "1");
    problem(late, 503, "unavailable").await;
    service.tasks.stop().await;
}

#[tokio::test]
async fn a_stop_lets_the_request_under_way_end_and_takes_no_new_one() {
    let service = service(|config| config.header_timeout = Duration::from_mins(1)).await;
    let mut idle = service.connect().await;
    let Service {
        tasks,
        address,
        client,
        release,
        waiting,
        ..
    } = service;
    let under_way = async { client.get(format!("{address}/held")).send().await.unwrap() };
    let stopping = async {
        waiting.notified().await;
        let stop = tasks.stop();
        let releasing = async {
            until_closed(&mut idle).await;
            eventually("no new connection is taken", async || {
                let address = address.trim_start_matches("http://");
                if TcpStream::connect(address).await.is_err() {
                    Ok(())
                } else {
                    Err("taken")
                }
            })
            .await;
            release.add_permits(1);
        };
        tokio::join!(stop, releasing);
    };
    let (answer, ()) = tokio::join!(under_way, stopping);
    assert_eq!(answer.text().await.unwrap(), "held");
}
