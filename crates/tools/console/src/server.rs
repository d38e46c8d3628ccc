//! The routes.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use local_page::Access;
use tokio::net::TcpListener;

use crate::app::Shared;
use crate::page::{file, note};
use crate::{actions, event, events, letters, log, overview};

/// The style of all pages, and what only the console needs.
const STYLE: &str = include_str!("console.css");
const SCRIPT: &str = include_str!("console.js");

/// How long open connections may take to end.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until the console is stopped.
pub(crate) async fn serve(
    app: Shared,
    access: Access,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let stop = app.stop.clone();
    let serving = axum::serve(listener, access.guard(router(app)))
        .with_graceful_shutdown(stop.clone().cancelled_owned());
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
