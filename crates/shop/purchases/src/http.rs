//! The HTTP API.

use axum::extract::State;
use axum::response::Response;
use headwater::Positions;
use headwater::http::{After, EventStream, Path, Problem, Query, with_position};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::follow::{self, Changed};
use crate::page::Shared;
use crate::purchase::{Cursor, Order, Part, Purchase, PurchaseLimit};

pub(crate) fn routes(shared: Shared) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(purchases))
        .with_state(shared)
}

/// The part of the list that a client asks for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct PartQuery {
    /// The most products per page.
    #[serde(default)]
    #[param(value_type = usize, required = false, minimum = 1, maximum = 1000, default = 100)]
    limit: PurchaseLimit,
    /// List the products after this cursor, which `next` of the previous page has.
    #[param(value_type = Option<String>, pattern = "^[0-9a-f]{48}$")]
    cursor: Option<Cursor>,
}

/// A page of what a user ever ordered.
#[derive(Debug, Serialize, ToSchema)]
struct UserPurchases {
    user_id: Uuid,
    /// Each product once, sorted by the time of its first order (in milliseconds), then by id.
    purchases: Vec<Purchase>,
    /// The path of the next page; `null` on the last page.
    #[schema(
        example = "/users/019569a6-736f-7371-a923-1f3233718301/purchases?limit=100&cursor=0000019569a6736f019569a6736f7371a9231f3233718301"
    )]
    next: Option<String>,
    /// The position of each source up to which the answer includes every event.
    #[schema(value_type = std::collections::BTreeMap<String, u64>)]
    as_of: Positions,
    /// The first event of a source that could not be applied and waits for an operator. The answer
    /// may include some later events. Left out if there is none.
    #[serde(skip_serializing_if = "Positions::is_empty")]
    #[schema(value_type = Option<std::collections::BTreeMap<String, u64>>)]
    parked: Positions,
}

/// Read what a user ordered
///
/// Every product that the user ever ordered, once, in pages, sorted by first order, oldest first.
/// A page is one consistent snapshot; `as_of` and the header `Headwater-Position` have its
/// positions. With `?after=orders:4711` (or that header, from the answer to a write) the request
/// waits until the answer includes that event. If an event could not be applied, `parked` names it,
/// `as_of` ends before it, and a request for it with `?after` is answered with 503.
///
/// A newly ordered product is added at the end of the list, so earlier pages stay correct.
///
/// With `Accept: text/event-stream` (style replica) the answer is a stream that follows the newest
/// `limit` products: an event `purchases` whenever something has changed, with what has changed.
/// Its id has the positions; a client that reconnects sends the last one as `Last-Event-ID` and
/// gets everything that has changed since. An event `erased` is the last one.
#[utoipa::path(
    get, path = "/users/{id}/purchases", tag = "purchases",
    params(("id" = Uuid, Path), PartQuery, After, EventStream),
    responses(
        (status = 200, content(
            (UserPurchases = "application/json"),
            (Changed = "text/event-stream"),
        ), headers(("Headwater-Position" = String, description = "The positions of the answer: orders:4711,products:194,users:12"))),
        (status = 404, description = "The user does not exist or was erased"),
        (status = 406, description = "Styles composition and request-reply have no stream"),
        (status = 429, description = "The address has too many streams"),
        (status = 503, description = "The positions of `?after` are not reached yet, or a source did not answer; try again after `Retry-After` seconds"),
        (status = 507, description = "Styles composition and request-reply: the user ordered more products than one answer may combine"),
    )
)]
async fn purchases(
    State(shared): State<Shared>,
    Path(id): Path<Uuid>,
    Query(PartQuery { limit, cursor }): Query<PartQuery>,
    After(after): After,
    stream: Option<EventStream>,
) -> Result<Response, Problem> {
    let limit = limit.get();
    if let Some(stream) = stream {
        if cursor.is_some() {
            return Err(Problem::bad_request(
                "a stream follows the newest products: leave out the cursor",
            ));
        }
        let followed = follow::follow(&shared, stream, id, limit, &after).await?;
        return followed.ok_or_else(|| no_user(id));
    }
    let part = Part {
        limit,
        from: cursor,
        order: Order::OldestFirst,
        with_newest: false,
    };
    let found = shared.answers.purchases(id, part, &after).await?;
    let found = found.ok_or_else(|| no_user(id))?;
    let last = found.purchases.last().filter(|_| found.more);
    let next =
        last.map(|(cursor, _)| format!("/users/{id}/purchases?limit={limit}&cursor={cursor}"));
    let page = UserPurchases {
        user_id: id,
        purchases: found
            .purchases
            .into_iter()
            .map(|(_, purchase)| purchase)
            .collect(),
        next,
        as_of: found.as_of,
        parked: found.parked,
    };
    Ok(with_position(&page.as_of.clone(), axum::Json(page)))
}

fn no_user(id: Uuid) -> Problem {
    Problem::not_found(format!(
        "there is no user {id}; if they registered a moment ago, send that answer's \
         Headwater-Position as ?after="
    ))
}
