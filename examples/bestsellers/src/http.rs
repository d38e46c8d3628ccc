//! The HTTP API: wait, then read.

use std::time::Duration;

use headwater::prelude::*;

use crate::store;

/// Products shown.
const SHOWN: u32 = 10;

#[derive(Debug, Clone)]
struct Shared {
    db: Database,
    progress: Progress,
    deadline: Duration,
}

pub(crate) fn routes(service: &Service, progress: Progress) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .with_state(Shared {
            db: service.db.clone(),
            progress,
            deadline: service.config.http.consistency_timeout,
        })
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
