//! The HTTP API: load, decide, append, save; answered after the fsync.

use headwater::prelude::*;

use crate::review::{Rejection, Review, WriteReview};
use crate::store;

pub(crate) fn routes(service: &Service) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(write))
        .with_state(service.db.clone())
}

/// The only place where a rejection becomes an answer.
impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        if rejection != Rejection::Stars {
            return Self::conflict(rejection.to_string());
        }
        let mut invalid = Invalid::none();
        invalid.require(false, "/stars", rejection.to_string());
        invalid.check().expect_err("something is wrong")
    }
}

/// Write a review
#[utoipa::path(
    post, path = "/reviews", tag = "reviews",
    params(IdempotencyKey),
    request_body = WriteReview,
    responses(
        (status = 201, body = Review),
        (status = 409, description = "The id is taken by a review from another request"),
        (status = 422, description = "A field is invalid, or the key was used for another request"),
    )
)]
async fn write(
    State(db): State<Database>,
    key: IdempotencyKey,
    Json(request): Json<WriteReview>,
) -> Result<Answer, Problem> {
    request.check()?;
    let key = key.scoped("POST /reviews");
    let fingerprint = Fingerprint::of(&request);
    let review = Review {
        id: request.id.unwrap_or_else(|| db.clock().new_id()),
        product_id: request.product_id,
        stars: request.stars,
    };
    let written = db.write(move |tx| {
        idempotency::once(tx, &key, &fingerprint, || {
            let id = review.id;
            if let Some(row) = store::find(tx, id)? {
                if row.fingerprint != fingerprint.0 {
                    return Err(Problem::from(Rejection::IdTaken(id)));
                }
                let position = outbox::position(tx, outbox::unsigned(row.position));
                return Ok((answer(&Review::from(row), position), id.to_string()));
            }
            let position = outbox::append(tx, &review.written_event())?;
            store::insert(tx, &review, &fingerprint.0, position.position)?;
            Ok((answer(&review, position), id.to_string()))
        })
    });
    Ok(written.await?.value)
}

fn answer(review: &Review, position: Position) -> Answer {
    Answer::created(format!("/reviews/{}", review.id), position, review)
}
