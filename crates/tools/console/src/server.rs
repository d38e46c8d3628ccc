//! The routes, and what stands before all of them.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::access::{Access, Refused};
use crate::app::Shared;
use crate::page::{file, note};
use crate::params::Params;
use crate::{actions, event, events, letters, log, overview};

/// What a page may load: only what this program serves.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The style of all pages, and what only the console needs.
const STYLE: &str = include_str!("console.css");
const SCRIPT: &str = include_str!("console.js");

/// How long open connections may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until the console is stopped.
pub(crate) async fn serve(app: Shared, listener: TcpListener) -> anyhow::Result<()> {
    let stop = app.stop.clone();
    let serving =
        axum::serve(listener, router(app)).with_graceful_shutdown(stop.clone().cancelled_owned());
    let late = async {
        stop.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = serving => served.context("serve the console"),
        () = late => Ok(()),
    }
}

fn router(app: Shared) -> Router {
    Router::new()
        .route("/", get(overview::show))
        .route("/live/overview", get(overview::follow))
        .route("/events", get(events::show))
        .route("/live/events", get(events::follow))
        .route("/events/{place}", get(event::show))
        .route("/dead-letters", get(letters::all))
        .route("/dead-letters/{service}/{id}", get(letters::one))
        .route("/confirm", get(actions::confirm))
        .route("/actions", get(actions::all).post(actions::begin))
        .route("/actions/{id}", get(actions::one))
        .route("/actions/{id}/cancel", post(actions::cancel))
        .route("/live/actions/{id}", get(actions::follow))
        .route("/log", get(log::show))
        .route("/console.css", get(style))
        .route(
            "/console.js",
            get(async || file("text/javascript; charset=utf-8", SCRIPT)),
        )
        .fallback(missing)
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

async fn style() -> Response {
    let text = format!("{}\n{STYLE}", headwater::http::STYLE);
    let kind = HeaderValue::from_static("text/css; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn missing(State(app): State<Shared>) -> Response {
    let line = "The console has no such page.".to_owned();
    note(&app, "", StatusCode::NOT_FOUND, "No such page", vec![line])
}

/// Answers only the operator's browser.
async fn guard(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let mut response = match admit(&app, &request) {
        Ok(Some(answer)) => answer,
        Ok(None) => next.run(request).await,
        Err(Refused(status, why)) => (status, format!("{why}\n")).into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        // With `no-referrer`, browsers send `Origin: null` with our own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for name in ["cross-origin-opener-policy", "cross-origin-resource-policy"] {
        headers.insert(name, HeaderValue::from_static("same-origin"));
    }
    response
}

/// Whether a request may pass, or its answer: the token in the address becomes a cookie.
fn admit(app: &Shared, request: &Request) -> Result<Option<Response>, Refused> {
    let (access, headers) = (&app.access, request.headers());
    access.check_host(request.uri(), headers)?;
    let query = request.uri().query().unwrap_or_default();
    let params = Params::parse(query.as_bytes());
    let token = params.get("token");
    if request.method() == Method::GET && !token.is_empty() {
        if !access.is_token(token) {
            return Err(Refused(
                StatusCode::UNAUTHORIZED,
                "The token is not of this run of the console: open the address that `headwater console` printed.",
            ));
        }
        let to = params.with("token", "").link(request.uri().path());
        let cookie = [(header::SET_COOKIE, access.cookie())];
        return Ok(Some((cookie, Redirect::to(&to)).into_response()));
    }
    access.check_cookie(headers)?;
    Access::check_origin(request.method(), headers)?;
    Ok(None)
}
