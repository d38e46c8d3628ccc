//! The HTTP API: wait, then read.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use headwater::http::{About, After, Problem, with_position};
use headwater::projection::Progress;
use headwater::{Database, Service};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::{NAME, store};

/// Products shown.
const SHOWN: u32 = 10;

#[derive(Debug, Clone)]
struct Shared {
    db: Database,
    progress: Progress,
    deadline: Duration,
}

pub(crate) fn app(service: &Service, progress: Progress) -> Router {
    let config = &service.config.http;
    let routes = OpenApiRouter::new()
        .routes(routes!(list))
        .with_state(Shared {
            db: service.db.clone(),
            progress,
            deadline: config.consistency_timeout,
        });
    let about = About {
        name: NAME,
        description: "The products ordered most.",
    };
    headwater::http::app(about, routes, service.health.clone(), config)
}

/// List the products ordered most
#[utoipa::path(
    get, path = "/bestsellers", tag = "bestsellers",
    params(After),
    responses((status = 200, description = "Title and number of order lines of ten products"))
)]
async fn list(
    State(Shared {
        db,
        progress,
        deadline,
    }): State<Shared>,
    After(after): After,
) -> Result<Response, Problem> {
    let (items, as_of) = store::read(&db, &progress, &after, deadline, SHOWN).await?;
    Ok(with_position(&as_of, axum::Json(items)))
}
