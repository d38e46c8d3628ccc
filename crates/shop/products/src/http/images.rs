//! Uploading and serving images.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headwater::Database;
use headwater::http::{Path, Problem};
use serde::Serialize;
use tokio::sync::OnceCell;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::image::{self, ImageId, Unfit};
use crate::store;

/// From this number of entries on, entries of images that are no longer being sent are removed.
const SENDING_MAX: usize = 1024;

/// A stored image.
struct Stored {
    content_type: HeaderValue,
    bytes: Vec<u8>,
}

/// An image that is being sent; empty until the first request for it has read it, `None` if there is
/// none.
type Cell = OnceCell<Option<Stored>>;

type Image = Arc<Cell>;

/// The images that are being sent: an image for several clients is read once, and in memory once.
#[derive(Clone, Default)]
struct Sending(Arc<Mutex<HashMap<ImageId, Weak<Cell>>>>);

impl Sending {
    fn image(&self, id: &ImageId) -> Image {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.get(id).and_then(Weak::upgrade) {
            return found;
        }
        if all.len() >= SENDING_MAX {
            all.retain(|_, image| image.strong_count() > 0);
        }
        let image = Image::default();
        all.insert(id.clone(), Arc::downgrade(&image));
        image
    }
}

/// The bytes of a stored image, without a copy.
struct ImageData(Image);

impl AsRef<[u8]> for ImageData {
    fn as_ref(&self) -> &[u8] {
        let image = self.0.get().and_then(Option::as_ref);
        image.map_or(&[], |image| &image.bytes)
    }
}

pub(super) fn routes(db: Database) -> OpenApiRouter {
    let upload = OpenApiRouter::new()
        .routes(routes!(upload))
        .layer(DefaultBodyLimit::max(image::BYTES_MAX));
    upload
        .routes(routes!(serve))
        .layer(Extension(Sending::default()))
        .with_state(db)
}

impl From<Unfit> for Problem {
    fn from(unfit: Unfit) -> Self {
        let (status, slug) = match unfit {
            Unfit::UnknownType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-content-type",
            ),
            Unfit::OfAnotherType(_) => (StatusCode::UNPROCESSABLE_ENTITY, "not-an-image"),
        };
        Self::new(status, slug, unfit.to_string())
    }
}

/// An uploaded image.
#[derive(Serialize, ToSchema)]
struct Uploaded {
    /// The path of the image, for a product's `image`.
    #[schema(example = "/images/2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")]
    image: String,
}

/// The bytes of an image.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "documents the body")]
struct ImageBytes(Vec<u8>);

/// Upload an image
///
/// The body is a PNG, JPEG, GIF, WebP or SVG image of at most 2 MiB. The same image always has the
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
        (status = 422, description = "The body is not an image of its `Content-Type`"),
    )
)]
async fn upload(
    State(db): State<Database>,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    let bytes = body.map_err(|rejection| {
        let detail = format!("an image may have at most {} bytes", image::BYTES_MAX);
        Problem::new(rejection.status(), "body-too-large", detail)
    })?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let content_type = image::check(content_type, &bytes)?;
    let id = ImageId::of(&bytes);
    let path = id.path();
    db.write(move |tx| store::save_image(tx, &id, content_type, &bytes))
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
async fn serve(
    State(db): State<Database>,
    Extension(sending): Extension<Sending>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let unknown = || Problem::not_found(format!("there is no image {id}"));
    let parsed = ImageId::parse(&id).ok_or_else(unknown)?;
    let image = sending.image(&parsed);
    let read = async || {
        let find = move |snapshot: &_| store::find_image(snapshot, &parsed);
        let Some(row) = db.read(find).await? else {
            return Ok(None);
        };
        let content_type = HeaderValue::try_from(row.content_type);
        Ok::<_, Problem>(Some(Stored {
            content_type: content_type.map_err(|_| Problem::internal())?,
            bytes: row.bytes,
        }))
    };
    let stored = image.get_or_try_init(read).await?;
    let content_type = stored.as_ref().ok_or_else(unknown)?.content_type.clone();
    let headers = [
        (header::CONTENT_TYPE, content_type),
        // The name is a hash of the content, so the content never changes.
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=31536000, immutable"),
        ),
        // A directly opened SVG must not run scripts.
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox",
            ),
        ),
    ];
    Ok((headers, Bytes::from_owner(ImageData(image))).into_response())
}
