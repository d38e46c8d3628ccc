//! Uploading images, and serving them.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headwater::Database;
use headwater::http::{Path, Problem};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Shared;
use crate::image::{self, ImageId};
use crate::store;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    let upload = OpenApiRouter::new()
        .routes(routes!(upload))
        .layer(DefaultBodyLimit::max(image::BYTES_MAX));
    upload.routes(routes!(serve))
}

/// An image that was uploaded.
#[derive(Serialize, ToSchema)]
struct Uploaded {
    /// Its path, to be used as a product's `image`.
    #[schema(example = "/images/2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")]
    image: String,
}

/// An image's own bytes.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "documents the body")]
struct ImageBytes(Vec<u8>);

/// Upload an image
///
/// PNG, JPEG, GIF, WebP or SVG, at most 2 MiB, as the body itself. The same image again gives the
/// same path.
#[utoipa::path(
    post, path = "/images", tag = "images",
    request_body(content(
        (ImageBytes = "image/png"),
        (ImageBytes = "image/jpeg"),
        (ImageBytes = "image/gif"),
        (ImageBytes = "image/webp"),
        (ImageBytes = "image/svg+xml"),
    )),
    responses(
        (status = 201, body = Uploaded),
        (status = 422, description = "The body is no image of its `Content-Type`"),
    )
)]
async fn upload(
    State(db): State<Database>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    let bytes = body.map_err(|rejection| {
        let detail = format!("an image may have {} bytes at most", image::BYTES_MAX);
        Problem::new(rejection.status(), "body-too-large", detail)
    })?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let content_type = image::check(content_type, &bytes)?;
    let id = ImageId::of(&bytes);
    let path = id.path();
    db.write(move |tx| store::save_image(tx, &id, content_type, bytes.into()))
        .await?;
    let location = [(header::LOCATION, path.clone())];
    let uploaded = axum::Json(Uploaded { image: path });
    Ok((StatusCode::CREATED, location, uploaded).into_response())
}

/// Read an image
#[utoipa::path(
    get, path = "/images/{id}", tag = "images",
    params(("id" = String, Path, pattern = "^[0-9a-f]{64}$")),
    responses(
        (status = 200, description = "The image", content(
            (ImageBytes = "image/png"),
            (ImageBytes = "image/jpeg"),
            (ImageBytes = "image/gif"),
            (ImageBytes = "image/webp"),
            (ImageBytes = "image/svg+xml"),
        )),
        (status = 404, description = "There is no such image"),
    )
)]
async fn serve(State(db): State<Database>, Path(id): Path<String>) -> Result<Response, Problem> {
    let unknown = || Problem::not_found(format!("there is no image {id}"));
    let parsed = ImageId::parse(&id).ok_or_else(unknown)?;
    let row = db
        .read(move |snapshot| store::find_image(snapshot, &parsed))
        .await?;
    let row = row.ok_or_else(unknown)?;
    let headers = [
        (header::CONTENT_TYPE, row.content_type.as_str()),
        // Its name is its content, so it never changes.
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // An SVG that is opened by itself must not run what is in it.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        ),
    ];
    Ok((headers, row.bytes).into_response())
}
