//! A small OpenTelemetry collector that keeps all spans in memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use headwater::http;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode as SpanStatus};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::eventually;

/// A received span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The service that sent it.
    pub service: String,
    /// The span's name.
    pub name: String,
    /// The trace id, in hexadecimal.
    pub trace: String,
    /// The span id.
    pub id: String,
    /// The parent's span id; empty for the root.
    pub parent: String,
    pub kind: SpanKind,
    /// Whether its status is an error.
    pub failed: bool,
    /// The attributes, as text.
    pub facts: BTreeMap<String, String>,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Collector {
    seen: Arc<Mutex<Vec<Seen>>>,
    endpoint: String,
    _serving: JoinSet<Result<(), http::Error>>,
}

impl Collector {
    pub async fn start() -> Self {
        let seen = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let app = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&seen));
        let config = http::Config::default();
        let mut serving = JoinSet::new();
        serving.spawn(http::serve(listener, app, config, CancellationToken::new()));
        Self {
            seen,
            endpoint: format!("http://{address}"),
            _serving: serving,
        }
    }

    /// Makes a service send its spans here.
    pub fn of(&self) -> impl Fn(&mut Command) {
        let endpoint = self.endpoint.clone();
        move |command| {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
        }
    }

    /// All spans so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The spans of one trace.
    pub fn of_trace(&self, trace: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|span| span.trace == trace);
        seen
    }

    /// Waits for the span of `trace` with this service and name.
    pub async fn span(&self, trace: &str, service: &str, name: &str) -> Seen {
        eventually(&format!("the span `{name}` of {service}"), || async {
            let seen = self.of_trace(trace);
            let found = seen
                .iter()
                .find(|span| span.service == service && span.name == name);
            found.cloned().ok_or(seen)
        })
        .await
    }
}

async fn take(State(seen): State<Arc<Mutex<Vec<Seen>>>>, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for resource in request.resource_spans {
        let of = facts(resource.resource.unwrap_or_default().attributes);
        let service = of.get("service.name").cloned().unwrap_or_default();
        let spans = resource.scope_spans.into_iter().flat_map(|all| all.spans);
        seen.extend(spans.map(|span| read(service.clone(), span)));
    }
    StatusCode::OK
}

fn read(service: String, span: Span) -> Seen {
    let status = span.status.clone().unwrap_or_default();
    Seen {
        service,
        kind: span.kind(),
        failed: status.code() == SpanStatus::Error,
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        facts: facts(span.attributes),
    }
}

fn facts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|fact| (fact.key, text(fact.value)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
