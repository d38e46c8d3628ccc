//! A simulated shop that stores records, notes every request and can be set to fail.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// One address simulates all three services.
pub(crate) struct Shop {
    pub(crate) url: String,
    state: Arc<Mutex<Books>>,
    _server: JoinSet<()>,
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) kind: String,
    pub(crate) after: Option<String>,
    pub(crate) key: String,
    pub(crate) body: Value,
    pub(crate) at: Instant,
}

/// A scripted answer.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: Value,
}

#[derive(Default)]
pub(crate) struct Books {
    pub(crate) requests: Vec<Request>,
    /// Answers that are each given once, before any other.
    pub(crate) script: VecDeque<Scripted>,
    /// The answer for every user whose name ends with this.
    pub(crate) never: Option<(String, Scripted)>,
    /// Requests wait here until enough are in progress.
    pub(crate) gate: Option<Arc<Barrier>>,
    pub(crate) under_way_max: usize,
    under_way: usize,
    /// Body and position by kind and id.
    records: HashMap<String, HashMap<String, (Value, usize)>>,
    keys: HashMap<String, Value>,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.expect("bind"))
    }

    pub(crate) fn on(listener: TcpListener) -> Self {
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let state = Arc::new(Mutex::new(Books::default()));
        let router = Router::new()
            .route("/{kind}", post(create))
            .with_state(Arc::clone(&state));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("serve") });
        Self {
            url,
            state,
            _server: server,
        }
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.state.lock().expect("books")
    }

    /// Scripts the next answer.
    pub(crate) fn answer_next(&self, status: u16, retry_after: Option<u64>, body: Value) {
        self.books().script.push_back(Scripted {
            status,
            retry_after,
            body,
        });
    }

    pub(crate) fn requests(&self, kind: &str) -> Vec<Request> {
        self.books()
            .requests
            .iter()
            .filter(|request| request.kind == kind)
            .cloned()
            .collect()
    }

    /// The created records of a kind, by id.
    pub(crate) fn records(&self, kind: &str) -> HashMap<String, Value> {
        let books = self.books();
        let records = books.records.get(kind).into_iter().flatten();
        records
            .map(|(id, (body, _))| (id.clone(), body.clone()))
            .collect()
    }
}

async fn create(
    State(state): State<Arc<Mutex<Books>>>,
    Path(kind): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| headers[name].to_str().expect("ASCII").to_owned();
    assert_eq!(text("content-type"), "application/json");
    let after = query.map(|query| query.strip_prefix("after=").expect("only after").to_owned());
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let request = Request {
        kind,
        after,
        key: text("idempotency-key"),
        body,
        at: Instant::now(),
    };
    let gate = {
        let mut books = state.lock().expect("books");
        books.under_way += 1;
        books.under_way_max = books.under_way_max.max(books.under_way);
        books.gate.clone()
    };
    if let Some(gate) = gate {
        gate.wait().await;
    }
    let mut books = state.lock().expect("books");
    books.under_way -= 1;
    books.requests.push(request.clone());
    books.answer(&request)
}

impl Books {
    fn answer(&mut self, request: &Request) -> Response {
        if let Some(scripted) = self.script.pop_front() {
            return scripted.into_response();
        }
        if let Some((name, scripted)) = &self.never
            && request.body["name"]
                .as_str()
                .is_some_and(|own| own.ends_with(name))
        {
            return scripted.clone().into_response();
        }
        let body = &request.body;
        if self
            .keys
            .entry(request.key.clone())
            .or_insert_with(|| body.clone())
            != body
        {
            return problem(422, "the key was used for another request");
        }
        if !self.knows_references(body) {
            return problem(422, "unknown user or product");
        }
        self.keep(request)
    }

    fn knows_references(&self, body: &Value) -> bool {
        let known = |kind: &str, id: &Value| {
            self.records
                .get(kind)
                .is_some_and(|ids| ids.contains_key(id.as_str().expect("id")))
        };
        let products = body["product_ids"].as_array().into_iter().flatten();
        (body["user_id"].is_null() || known("users", &body["user_id"]))
            && products.into_iter().all(|id| known("products", id))
    }

    fn keep(&mut self, request: &Request) -> Response {
        let records = self.records.entry(request.kind.clone()).or_default();
        let id = request.body["id"].as_str().expect("id").to_owned();
        let next = records.len() + 1;
        let (kept, position) = records
            .entry(id)
            .or_insert_with(|| (request.body.clone(), next));
        if *kept != request.body {
            return problem(409, "the id is taken");
        }
        let position = format!("{}:{position}", request.kind);
        (
            StatusCode::CREATED,
            [("headwater-position", position)],
            "{}",
        )
            .into_response()
    }
}

fn problem(status: u16, detail: &str) -> Response {
    let body = json!({"type": "about:blank", "title": "No", "status": status, "detail": detail});
    Scripted {
        status,
        retry_after: None,
        body,
    }
    .into_response()
}

impl IntoResponse for Scripted {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).expect("status");
        let mut response = (status, self.body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            "content-type",
            "application/problem+json".parse().expect("header"),
        );
        if status.is_redirection() {
            headers.insert("location", "/elsewhere".parse().expect("header"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert("retry-after", seconds.into());
        }
        response
    }
}
