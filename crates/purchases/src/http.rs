//! The HTTP API and the web page's routes.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use headwater::Service;
use headwater::http::{About, After, Path, Problem, with_position};
use url::Url;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::answer::{Answers, UserPurchases};
use crate::page;
use crate::style::Style;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) style: Style,
    pub(crate) answers: Answers,
    pub(crate) images_url: Url,
}

pub(crate) fn app<D>(service: &Service<D>, shared: Shared) -> Router {
    let about = About {
        name: shared.style.service(),
        description: "Title and image of every product a user ever ordered.",
    };
    let routes = OpenApiRouter::new()
        .routes(routes!(purchases))
        .route("/", get(page::find_user))
        .route("/users/{id}", get(page::user))
        .with_state(shared);
    headwater::http::app(about, routes, service.health.clone(), &service.config.http)
}

/// Read what a user ordered
///
/// Every product that the user ever ordered, once. The answer is of one moment, and says which:
/// `as_of`, and the header `Headwater-Position`. `?after=orders:4711` (or that header, as a write
/// gave it) waits until the answer has that event in it. Where an event could not be applied,
/// `parked` names it, `as_of` ends before it, and who asks for it is answered with 503.
#[utoipa::path(
    get, path = "/users/{id}/purchases", tag = "purchases",
    params(
        ("id" = Uuid, Path),
        ("after" = Option<String>, Query, description = "Positions that the answer must have in it: orders:4711,users:12"),
    ),
    responses(
        (status = 200, body = UserPurchases, headers(("Headwater-Position" = String, description = "What the answer is as of: orders:4711,products:194,users:12"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such user, or none any more", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Not yet there, or a source that was asked did not answer: try again", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn purchases(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
    After(after): After,
) -> Result<Response, Problem> {
    let found = shared.answers.purchases(id, &after).await?;
    let found = found.ok_or_else(|| {
        Problem::not_found(format!(
            "there is no user {id}; if they registered a moment ago, send the answer's \
             Headwater-Position along as ?after="
        ))
    })?;
    Ok(with_position(&found.as_of.clone(), axum::Json(found)))
}
