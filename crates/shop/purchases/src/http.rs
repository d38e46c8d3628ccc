//! The HTTP API.

use axum::extract::State;
use axum::response::Response;
use headwater::Positions;
use headwater::http::{After, Path, Problem, Query, with_position};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::answers::Answers;
use crate::purchase::{Cursor, Order, Part, Purchase, PurchaseLimit};

pub(crate) fn routes(answers: Answers) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(purchases))
        .with_state(answers)
}

/// Which part of the list a client asks for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PartQuery {
    /// How many products at most.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: PurchaseLimit,
    /// Give the products after this place in the list; `next` of the page before has it.
    #[param(value_type = Option<String>, pattern = "^[0-9a-f]{48}$")]
    cursor: Option<Cursor>,
}

/// A page of what a user ever ordered, as of some positions.
#[derive(Debug, Serialize, ToSchema)]
struct UserPurchases {
    user_id: Uuid,
    /// Each product once, by the time of its first order, and of those of the same millisecond by
    /// its id.
    purchases: Vec<Purchase>,
    /// Where the next page is; `null` on the last.
    #[schema(
        example = "/users/019569a6-736f-7371-a923-1f3233718301/purchases?limit=100&cursor=0000019569a6736f019569a6736f7371a9231f3233718301"
    )]
    next: Option<String>,
    /// Up to where each source's events are in it without one missing.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    as_of: Positions,
    /// The first event of a source that could not be applied and waits for an operator; some
    /// later ones may be in the answer. Left out where there is none.
    #[serde(skip_serializing_if = "Positions::is_empty")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, u64>>)]
    parked: Positions,
}

/// Read what a user ordered
///
/// Every product that the user ever ordered, once, in pages: those that were ordered first come
/// first. A page is of one moment, and says which: `as_of`, and the header `Headwater-Position`.
/// `?after=orders:4711` (or that header, as a write gave it) waits until the answer has that event
/// in it. Where an event could not be applied, `parked` names it, `as_of` ends before it, and who
/// asks for it is answered with 503.
///
/// A product that is ordered for the first time comes at the end of the list, so pages that were
/// read before stay right.
#[utoipa::path(
    get, path = "/users/{id}/purchases", tag = "purchases",
    params(("id" = Uuid, Path), PartQuery, After),
    responses(
        (status = 200, body = UserPurchases, headers(("Headwater-Position" = String, description = "What the answer is as of: orders:4711,products:194,users:12"))),
        (status = 404, description = "There is no such user, or none any more"),
        (status = 503, description = "Not yet there, or a source that was asked did not answer: try again after `Retry-After` seconds"),
        (status = 507, description = "styles composition and request-reply: the user ordered more products than are put together for an answer"),
    )
)]
async fn purchases(
    State(answers): State<Answers>,
    Path(id): Path<Uuid>,
    Query(PartQuery { limit, cursor }): Query<PartQuery>,
    After(after): After,
) -> Result<Response, Problem> {
    let limit = limit.get();
    let part = Part {
        limit,
        from: cursor,
        order: Order::OldestFirst,
    };
    let found = answers.purchases(id, part, &after).await?;
    let found = found.ok_or_else(|| {
        Problem::not_found(format!(
            "there is no user {id}; if they registered a moment ago, send the answer's \
             Headwater-Position along as ?after="
        ))
    })?;
    let last = found.purchases.last().filter(|_| found.more);
    let next = last.map(|(place, _)| format!("/users/{id}/purchases?limit={limit}&cursor={place}"));
    let page = UserPurchases {
        user_id: id,
        purchases: found.purchases.into_iter().map(|(_, one)| one).collect(),
        next,
        as_of: found.as_of,
        parked: found.parked,
    };
    Ok(with_position(&page.as_of.clone(), axum::Json(page)))
}
