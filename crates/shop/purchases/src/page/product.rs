//! The page of a product.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use headwater::Positions;
use headwater::http::{Path, Problem};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::look::{Missing, Moment, Picture, Shared, render};
use crate::list::Sales;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(product))
}

#[derive(Debug, Template)]
#[template(path = "product.html")]
struct ProductPage {
    picture: Picture,
    /// `None` in a style that asks for one user's orders only.
    sales: Option<Sales>,
    last: Option<Moment>,
    as_of: Positions,
}

/// Show a product
#[utoipa::path(
    get, path = "/products/{id}", tag = "pages",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "HTML", body = String, content_type = "text/html"),
        (status = 404, description = "There is no such product", body = String, content_type = "text/html"),
        (status = 503, description = "Styles composition and request-reply: the service products did not answer"),
    )
)]
async fn product(
    State(shared): State<Shared>,
    Path(text): Path<String>,
) -> Result<Response, Problem> {
    let found = match text.parse() {
        Ok(id) => shared.answers.product(id).await?,
        Err(_) => None,
    };
    let Some((product, sales, as_of)) = found else {
        let page = Missing {
            what: "product",
            id: text,
            why: "It does not exist, or its creation has not arrived here yet.",
        };
        return render(StatusCode::NOT_FOUND, &page);
    };
    let page = ProductPage {
        picture: Picture::of(product, &shared.images_url),
        last: sales
            .and_then(|sales| sales.last_ordered_at)
            .map(Moment::of_ms),
        sales,
        as_of,
    };
    render(StatusCode::OK, &page)
}
