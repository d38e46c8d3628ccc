//! The HTTP API: load, decide, append, save; answered after the fsync.

mod images;

use axum::extract::State;
use axum::response::Response;
use headwater::database::Tx;
use headwater::http::{
    Answer, IdempotencyKey, Invalid, Json, Page, PageQuery, Path, Problem, Query, with_position,
};
use headwater::idempotency::{self, Fingerprint};
use headwater::{Database, outbox};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::address::Hosts;
use crate::product::{self, CreateProduct, Image, Product, Rejection, UpdateProduct};
use crate::store;

/// The most ids per request.
const IDS_MAX: usize = 500;

/// What the handlers work with.
#[derive(Debug, Clone)]
struct Shared {
    db: Database,
    hosts: Hosts,
}

pub(crate) fn routes(db: &Database, hosts: Hosts) -> OpenApiRouter {
    let shared = Shared {
        db: db.clone(),
        hosts,
    };
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(read, update))
        .with_state(shared)
        .merge(images::routes(db.clone()))
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let Rejection::Invalid(wrong) = rejection else {
            return Self::conflict(rejection.to_string());
        };
        let mut invalid = Invalid::none();
        for wrong in wrong {
            let pointer = match wrong {
                product::Invalid::Nothing => "",
                product::Invalid::TitleLength | product::Invalid::Title(_) => "/title",
                product::Invalid::ImageLength
                | product::Invalid::Image(_)
                | product::Invalid::UnknownUpload => "/image",
            };
            invalid.require(false, pointer, wrong.to_string());
        }
        invalid.check().expect_err("something is wrong")
    }
}

/// Create a product
///
/// A repeated request with the same `Idempotency-Key` or the same `id` gets the same answer and
/// changes nothing.
#[utoipa::path(
    post, path = "/products", tag = "products",
    params(IdempotencyKey),
    request_body = CreateProduct,
    responses(
        (status = 201, body = Product, headers(("Headwater-Position" = String, description = "The position of its event: products:194"))),
        (status = 409, description = "The id is taken by a product from another request"),
        (status = 422, description = "A field is invalid, or the key was used for another request"),
    )
)]
async fn create(
    State(Shared { db, hosts }): State<Shared>,
    key: IdempotencyKey,
    Json(request): Json<CreateProduct>,
) -> Result<Answer, Problem> {
    let image = request.check(hosts)?;
    let fingerprint = Fingerprint::of(&request);
    let key = key.scoped("POST /products");
    let product = Product {
        id: request.id.unwrap_or_else(|| db.clock().new_id()),
        title: request.title,
        image: request.image,
    };
    let written = db.write(move |tx| {
        idempotency::once(tx, &key, &fingerprint, || {
            let id = product.id;
            if let Some(row) = store::find(tx, id)? {
                if row.fingerprint != fingerprint.0 {
                    return Err(Problem::from(Rejection::IdTaken(id)));
                }
                let position = outbox::position(tx, outbox::unsigned(row.position));
                return Ok((answer(&Product::from(row), position), id.to_string()));
            }
            require_upload(tx, &image)?;
            let position = outbox::append(tx, &product.created_event())?;
            store::insert(tx, &product, &fingerprint.0, position.position)?;
            Ok((answer(&product, position), id.to_string()))
        })
    });
    Ok(written.await?.value)
}

fn answer(product: &Product, position: headwater::Position) -> Answer {
    Answer::created(format!("/products/{}", product.id), position, product)
}

/// Checks that the upload that `image` refers to exists.
fn require_upload(tx: &Tx, image: &Image) -> Result<(), Problem> {
    match image {
        Image::Upload(id) if !store::has_image(tx, id)? => {
            Err(Rejection::Invalid(vec![product::Invalid::UnknownUpload]).into())
        }
        _ => Ok(()),
    }
}

/// Change a product
///
/// A field that is left out keeps its value. A change to the present values does nothing.
#[utoipa::path(
    patch, path = "/products/{id}", tag = "products",
    params(("id" = Uuid, Path)),
    request_body = UpdateProduct,
    responses(
        (status = 200, body = Product, headers(("Headwater-Position" = String, description = "The position of its event: products:195"))),
        (status = 404, description = "There is no such product"),
    )
)]
async fn update(
    State(Shared { db, hosts }): State<Shared>,
    Path(id): Path<Uuid>,
    Json(request): Json<UpdateProduct>,
) -> Result<Response, Problem> {
    let image = request.check(hosts)?;
    let written = db.write(move |tx| {
        let row = store::find(tx, id)?.ok_or_else(|| unknown(id))?;
        let position = outbox::unsigned(row.position);
        let before = Product::from(row);
        let product = before.updated(request);
        if product == before {
            return Ok((product, outbox::position(tx, position)));
        }
        if let Some(image) = &image {
            require_upload(tx, image)?;
        }
        let position = outbox::append(tx, &product.updated_event())?;
        store::update(tx, &product, position.position)?;
        Ok::<_, Problem>((product, position))
    });
    let (product, position) = written.await?.value;
    Ok(with_position(&position, axum::Json(product)))
}

/// Read a product
#[utoipa::path(
    get, path = "/products/{id}", tag = "products",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = Product, headers(("Headwater-Position" = String, description = "The position of the answer: products:194"))),
        (status = 404, description = "There is no such product"),
    )
)]
async fn read(
    State(Shared { db, .. }): State<Shared>,
    Path(id): Path<Uuid>,
) -> Result<Response, Problem> {
    let find = move |snapshot: &_| store::find(snapshot, id);
    let (row, as_of) = db.read_as_of(find).await?;
    let answer = row.map(|row| axum::Json(Product::from(row)));
    Ok(with_position(&as_of, answer.ok_or_else(|| unknown(id))))
}

fn unknown(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no product {id}"))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Ids {
    /// List only these products: at most 500 ids, separated by commas. Unknown ids are left out.
    ids: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct ProductPage {
    items: Vec<Product>,
    /// The path of the next page; `null` on the last page.
    next: Option<String>,
}

/// List products
///
/// In pages, sorted by id; or those with the given `ids`.
#[utoipa::path(
    get, path = "/products", tag = "products",
    params(Ids, PageQuery),
    responses(
        (status = 200, body = ProductPage, headers(("Headwater-Position" = String, description = "The position of the page: products:194"))),
    )
)]
async fn list(
    State(Shared { db, .. }): State<Shared>,
    Query(Ids { ids }): Query<Ids>,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    if let Some(ids) = ids {
        let ids = parse_ids(&ids)?;
        let find = move |snapshot: &_| store::find_all(snapshot, &ids);
        let (rows, as_of) = db.read_as_of(find).await?;
        let items = rows.into_iter().map(Product::from).collect();
        return Ok(with_position(
            &as_of,
            axum::Json(Page { items, next: None }),
        ));
    }
    let (start_after, limit) = (query.start_after(), query.limit());
    let read = move |snapshot: &_| store::page(snapshot, start_after, limit + 1);
    let (rows, as_of) = db.read_as_of(read).await?;
    let link = |limit, id| format!("/products?limit={limit}&start_after={id}");
    let page = query.page(rows, |row| row.id, link, Product::from);
    Ok(with_position(&as_of, axum::Json(page)))
}

fn parse_ids(text: &str) -> Result<Vec<Uuid>, Problem> {
    let ids: Vec<Uuid> = text
        .split(',')
        .map(|id| {
            id.trim()
                .parse()
                .map_err(|_| Problem::bad_request(format!("`{id}` in ids is not a UUID")))
        })
        .collect::<Result<_, _>>()?;
    if ids.len() > IDS_MAX {
        return Err(Problem::bad_request(format!(
            "ask for at most {IDS_MAX} ids at once"
        )));
    }
    Ok(ids)
}
