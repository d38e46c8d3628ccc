//! Adds to a service's routes what all services share.

use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use headwater_telemetry::health::{Health, State as Part};
use headwater_telemetry::trace::{self, Span, SpanKind};
use headwater_telemetry::{Counted, log as telemetry, with_old_names};
use serde::Deserialize;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::timeout::TimeoutLayer;
use utoipa::IntoParams;
use utoipa::openapi::{InfoBuilder, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clients::UnderWay;
use crate::config::Config;
use crate::docs::{self, Docs};
use crate::extract::Query;
use crate::host::{self, Hosts};
use crate::openapi::{self, Parameters};
use crate::problem::Problem;

/// The largest body of a request, in bytes, unless a route sets its own limit.
const BODY_MAX: usize = 256 * 1024;

/// Requests of monitoring tools are not traced.
const UNTRACED: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// When to check again whether a service is ready.
const NOT_READY_RETRY: Duration = Duration::from_secs(5);

/// A service's description.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its name, and the source of its events. Never rename.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub description: &'static str,
    /// Its version: `env!("CARGO_PKG_VERSION")`.
    pub version: &'static str,
    /// Its port, unless `--listen` names another.
    pub port: u16,
}

/// Headers for browsers, unless a route sets its own: do not store, do not guess the content type,
/// send no referrer to others, load nothing, allow no framing. Without referrers of their own,
/// browsers send no `Origin` with a form.
const BROWSER_HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("same-origin"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
];

/// When to retry a request for whose answer there was no memory.
const NO_MEMORY_RETRY: Duration = Duration::from_secs(1);

/// The `Retry-After` of a request from an address that does not take its answers.
const UNTAKEN_RETRY: Duration = Duration::from_secs(5);

/// `routes` with health, documentation, limits and problems around them.
pub fn app(about: About, routes: OpenApiRouter, health: Health, config: &Config) -> Router {
    surround(about, routes.merge(system(health)), config)
}

/// Health and metrics of a service, for a listener that only operators reach.
pub fn admin(about: About, health: Health, config: &Config) -> Router {
    let about = About {
        description: "Health and metrics.",
        ..about
    };
    surround(about, system(health).routes(routes!(metrics)), config)
}

/// Health is public too, because load balancers check it where they send requests.
fn system(health: Health) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(livez))
        .routes(routes!(readyz))
        .with_state(health)
}

fn surround(about: About, routes: OpenApiRouter, config: &Config) -> Router {
    let info = InfoBuilder::new()
        .title(format!("Headwater {}", about.name))
        .version(about.version)
        .description(Some(about.description))
        .build();
    let (routes, paths) = routes.split_for_parts();
    let (docs, docs_paths) = docs::routes().split_for_parts();
    let mut document = OpenApiBuilder::from(paths).info(info).build();
    document.merge(docs_paths);
    openapi::complete(&mut document);
    routes
        .merge(docs.with_state(Docs::of(&document)))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(
            Parameters::of(&document),
            openapi::refuse_unknown,
        ))
        .layer(axum::extract::DefaultBodyLimit::max(BODY_MAX))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::SERVICE_UNAVAILABLE,
            config.timeout,
        ))
        .layer(CatchPanicLayer::custom(|_| {
            tracing::error!("a request panicked");
            Problem::internal().into_response()
        }))
        .layer(middleware::from_fn_with_state(
            Hosts::of(&config.public_host),
            host::refuse_other,
        ))
        .layer(middleware::from_fn(buffer))
        .layer(middleware::from_fn_with_state(about.name, observe))
}

/// Counts the memory of an answer until the client has taken it. An answer for which there is no
/// memory becomes a problem, as does a request from an address that does not take its answers.
/// Streams, whose length is unknown, are not counted.
async fn buffer(request: Request, next: Next) -> Response {
    let under_way: Option<UnderWay> = request.extensions().get().cloned();
    if let Some(under_way) = &under_way
        && !under_way.may_begin().await
    {
        let refused = Problem::unavailable(
            "clients at this address do not take their answers; read them, then try again",
            UNTAKEN_RETRY,
        );
        return ([(header::CONNECTION, "close")], refused).into_response();
    }
    let (head, body) = next.run(request).await.into_parts();
    let (Some(under_way), Some(1..)) = (under_way, body.size_hint().exact()) else {
        return Response::from_parts(head, body);
    };
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return Problem::internal().into_response();
    };
    match under_way.buffer(bytes).await {
        Some(bytes) => Response::from_parts(head, bytes.into()),
        None => Problem::unavailable(
            "there is no memory for the answer, because clients do not take theirs; try again",
            NO_MEMORY_RETRY,
        )
        .into_response(),
    }
}

/// Turns other errors into problems, and counts the request.
async fn observe(State(service): State<&'static str>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let path = request.uri().path().to_owned();
    let in_flight = metrics::gauge!("headwater_http_in_flight", "service" => service);
    let _counted = Counted::one_more(in_flight);
    let span = trace(method, &route, &request);
    let response = span.around(next.run(request)).await;
    let status = response.status();
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.fail(&status);
    }
    let mut response = as_problem(response, &path);
    for (name, value) in BROWSER_HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    metrics::histogram!(
        "headwater_http_request_seconds",
        "service" => service, "method" => method, "route" => route.clone(),
        "status" => status.as_u16().to_string()
    )
    .record(started.elapsed());
    tracing::debug!(method, route, status = status.as_u16(), "request");
    response
}

/// The span of a request, within the client's trace.
fn trace(method: &'static str, route: &str, request: &Request) -> Span {
    if UNTRACED.contains(&route) {
        return Span::default();
    }
    let traceparent = request.headers().get(trace::TRACEPARENT);
    let traceparent = traceparent.and_then(|value| value.to_str().ok());
    let name = || format!("{method} {route}");
    let span = trace::caused(traceparent, SpanKind::Server, name);
    if span.is_recording() {
        span.set("http.request.method", method);
        span.set("http.route", route.to_owned());
        span.set("url.path", request.uri().path().to_owned());
    }
    span
}

/// Turns errors of layers or of axum's own extractors, which have no body or a plain text, into
/// problems. A service's own HTML error page stays.
fn as_problem(response: Response, path: &str) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_meant = |kind: &HeaderValue| !kind.as_bytes().starts_with(b"text/plain");
    if kind.is_some_and(is_meant) || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let problem = match status {
        StatusCode::SERVICE_UNAVAILABLE => Problem::unavailable(
            "the request took too long; try again",
            Duration::from_secs(1),
        ),
        StatusCode::NOT_FOUND => nothing_at(path),
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(status, "body-too-large", "send a smaller body")
        }
        _ if status.is_client_error() => {
            Problem::new(status, "bad-request", "see /docs for this API")
        }
        _ => Problem::internal(),
    };
    problem.into_response()
}

/// The method as a label. Clients may invent methods; a metric for each would fill the memory.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// Whether the process answers
#[utoipa::path(
    get, path = "/livez", tag = "operation",
    responses((status = 200, description = "It answers", body = String, content_type = "text/plain")),
)]
async fn livez() -> &'static str {
    "ok\n"
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Verbose {
    /// With any value: answer with each component of the service and its state.
    verbose: Option<String>,
}

/// Whether no component of the service has failed
#[utoipa::path(
    get, path = "/readyz", tag = "operation", params(Verbose),
    responses(
        (status = 200, description = "None has failed", content(
            (String = "text/plain"),
            (BTreeMap<String, Part> = "application/json"),
        )),
        (status = 503, description = "One has failed", content(
            (Problem = "application/problem+json"),
            (BTreeMap<String, Part> = "application/json"),
        )),
    ),
)]
async fn readyz(State(health): State<Health>, Query(query): Query<Verbose>) -> Response {
    let status = if health.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if query.verbose.is_some() {
        return (status, axum::Json(health.parts())).into_response();
    }
    if status == StatusCode::OK {
        return "ready\n".into_response();
    }
    Problem::unavailable(
        "a component has failed; see /readyz?verbose",
        NOT_READY_RETRY,
    )
    .into_response()
}

/// Metrics for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "operation",
    responses((status = 200, description = "In Prometheus' text format", body = String, content_type = "text/plain")),
)]
async fn metrics() -> Response {
    let handle = telemetry::metrics_handle();
    handle.run_upkeep();
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        with_old_names(&handle.render()),
    )
        .into_response()
}

async fn no_such_path(request: Request) -> Problem {
    nothing_at(request.uri().path())
}

fn nothing_at(path: &str) -> Problem {
    Problem::not_found(format!(
        "there is nothing at {path}; see /docs for this API"
    ))
}

async fn no_such_method(method: Method, request: Request) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        format!(
            "{} does not support {method}; the Allow header lists the supported methods",
            request.uri().path()
        ),
    )
}
