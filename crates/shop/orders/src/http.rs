//! The HTTP API: load, decide, append, save; answered after the fsync.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use headwater::database::Tx;
use headwater::http::{
    After, Answer, IdempotencyKey, Invalid, Json, PageQuery, Path, Problem, Query, with_position,
};
use headwater::idempotency::{self, Fingerprint, Key};
use headwater::projection::Progress;
use headwater::{Database, Service, outbox};
use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::order::{self, Order, OrderView, PlaceOrder, Rejection};
use crate::store;

/// What the handlers work with.
#[derive(Debug, Clone)]
struct Shared {
    db: Database,
    known_ids: Progress,
    consistency_timeout: Duration,
}

pub(crate) fn routes(service: &Service, known_ids: Progress) -> OpenApiRouter {
    let shared = Shared {
        db: service.db.clone(),
        known_ids,
        consistency_timeout: service.config.http.consistency_timeout,
    };
    OpenApiRouter::new()
        .routes(routes!(place, list))
        .routes(routes!(read))
        .with_state(shared)
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let Rejection::Invalid(wrong) = rejection else {
            return Self::conflict(rejection.to_string());
        };
        let mut invalid = Invalid::none();
        for wrong in wrong {
            invalid.require(false, pointer(&wrong), wrong.to_string());
        }
        invalid.check().expect_err("something is wrong")
    }
}

/// Where the wrong value is in the request.
fn pointer(wrong: &order::Invalid) -> String {
    match wrong {
        order::Invalid::NoLines | order::Invalid::TooManyLines(_) => "/product_ids".to_owned(),
        order::Invalid::UnknownUser(_) => "/user_id".to_owned(),
        order::Invalid::UnknownProduct { line, .. } => format!("/product_ids/{line}"),
    }
}

/// Place an order
///
/// A repeated request with the same `Idempotency-Key` or the same `id` gets the same answer and
/// changes nothing. A new user or product may be unknown to this service for a moment. With
/// `?after=users:12,products:7`, the `Headwater-Position`s of their answers, the request waits
/// until it is known.
#[utoipa::path(
    post, path = "/orders", tag = "orders",
    params(IdempotencyKey, After),
    request_body = PlaceOrder,
    responses(
        (status = 201, body = OrderView, headers(("Headwater-Position" = String, description = "The position of its event: orders:4711"))),
        (status = 409, description = "The id is taken by an order from another request"),
        (status = 422, description = "A field is invalid, a user or product is unknown, or the key was used for another request"),
        (status = 410, description = "The order that the key placed has been erased"),
    )
)]
async fn place(
    State(shared): State<Shared>,
    key: IdempotencyKey,
    After(after): After,
    Json(request): Json<PlaceOrder>,
) -> Result<Answer, Problem> {
    request.check()?;
    shared
        .known_ids
        .wait(&after, shared.consistency_timeout)
        .await?;
    let key = key.scoped("POST /orders");
    let id = request.id.unwrap_or_else(|| shared.db.clock().new_id());
    let fingerprint = Fingerprint::of(&request);
    let written = shared
        .db
        .write(move |tx| save(tx, &key, &fingerprint, id, &request));
    Ok(written.await?.value)
}

/// The transaction of `POST /orders`. `bench` also runs it without HTTP.
///
/// # Errors
/// The order cannot be placed.
pub fn save(
    tx: &Tx,
    key: &Key,
    fingerprint: &Fingerprint,
    id: Uuid,
    request: &PlaceOrder,
) -> Result<Answer, Problem> {
    let mut is_new = false;
    let answer = idempotency::once(tx, key, fingerprint, || {
        is_new = true;
        let entity = id.to_string();
        let same_id = store::find(tx, id)?;
        let is_other = |row: &store::Row| row.fingerprint != fingerprint.0;
        if same_id.as_ref().is_some_and(is_other) {
            return Err(Problem::from(Rejection::IdTaken(id)));
        }
        if let Some(row) = store::shown(tx, same_id)? {
            let position = outbox::position(tx, outbox::unsigned(row.position));
            let order = store::with_lines(tx, vec![row])?.remove(0);
            return Ok((answer(order, position), entity));
        }
        let known = store::known(tx, request)?;
        let order = order::place(request, id, &known, tx.now_ms())?;
        let position = outbox::append(tx, &order.placed_event())?;
        store::insert(tx, &order, &fingerprint.0, position.position)?;
        Ok((answer(order, position), entity))
    })?;
    // A repeated request has the same user. If the user was erased meanwhile, the stored answer may
    // still exist: it is removed in parts.
    if !is_new && store::is_erased(tx, request.user_id)? {
        return Err(idempotency::Refusal::Erased.into());
    }
    Ok(answer)
}

fn answer(order: Order, position: headwater::Position) -> Answer {
    let location = format!("/orders/{}", order.id);
    Answer::created(location, position, &OrderView::from(order))
}

/// Read an order
#[utoipa::path(
    get, path = "/orders/{id}", tag = "orders",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = OrderView, headers(("Headwater-Position" = String, description = "The position of the answer: orders:4711"))),
        (status = 404, description = "There is no such order"),
    )
)]
async fn read(State(shared): State<Shared>, Path(id): Path<Uuid>) -> Result<Response, Problem> {
    let find = move |snapshot: &_| {
        let row = store::shown(snapshot, store::find(snapshot, id)?)?;
        Ok::<_, DbErr>(store::with_lines(snapshot, row.into_iter().collect())?.pop())
    };
    let (order, as_of) = shared.db.read_as_of(find).await?;
    let answer = order.map(|order| axum::Json(OrderView::from(order)));
    let unknown = || Problem::not_found(format!("there is no order {id}"));
    Ok(with_position(&as_of, answer.ok_or_else(unknown)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct OfUser {
    /// The user whose orders to list.
    user_id: Uuid,
}

#[derive(Serialize, ToSchema)]
struct OrderPage {
    items: Vec<OrderView>,
    /// The path of the next page; `null` on the last page.
    next: Option<String>,
}

/// List a user's orders
///
/// In pages, sorted by id.
#[utoipa::path(
    get, path = "/orders", tag = "orders",
    params(OfUser, PageQuery),
    responses(
        (status = 200, body = OrderPage, headers(("Headwater-Position" = String, description = "The position of the page: orders:4711"))),
    )
)]
async fn list(
    State(shared): State<Shared>,
    Query(OfUser { user_id }): Query<OfUser>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    let (start_after, limit) = (query.start_after(), query.limit());
    let read = move |snapshot: &_| store::page_of_user(snapshot, user_id, start_after, limit + 1);
    let (orders, as_of) = shared.db.read_as_of(read).await?;
    let link = |limit, id| format!("/orders?user_id={user_id}&limit={limit}&start_after={id}");
    let page = query.page(orders, |order| order.id, link, OrderView::from);
    Ok(with_position(&as_of, axum::Json(page)))
}
