//! Errors sent to clients: RFC 9457 problems.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headwater_event::{Behind, NotPositions};
use headwater_store::{WriteError, database, idempotency};
use rusqlite::ErrorCode;
use sea_orm::DbErr;
use serde::Serialize;
use utoipa::ToSchema;

use crate::text;

/// When to retry a request that a damaged or busy store could not answer.
const STORE_RETRY: Duration = Duration::from_secs(2);

/// When to retry a request that found the disk full. The status is 503 and not 507, because the
/// state is temporary, and clients that retry after a 503 with the same key need not know about it.
const FULL_RETRY: Duration = Duration::from_secs(10);

/// When to retry a request that an operator must unblock first.
const PARKED_RETRY: Duration = Duration::from_secs(10);

/// An error answer: `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Identifies the kind of problem; stable, for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:headwater:problem:not-found")]
    kind: String,
    /// The kind of problem in words.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What is wrong, and what to do about it.
    detail: String,
    /// The fields that are wrong, if any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where it is: a JSON pointer into the request's body.
    #[schema(example = "/title")]
    pointer: String,
    /// What is wrong with it, and what would be right.
    detail: String,
}

impl Problem {
    /// A problem of the kind `slug`.
    pub fn new(status: StatusCode, slug: &str, detail: impl Into<String>) -> Self {
        let title = slug.replace('-', " ");
        Self {
            kind: format!("urn:headwater:problem:{slug}"),
            title: title[..1].to_uppercase() + &title[1..],
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
            retry_after: None,
        }
    }

    /// 404: the resource does not exist.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 409: the request contradicts the current state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// 503: try again after `retry_after`.
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
        }
    }

    /// 429: too many at once; try again after `retry_after`.
    pub fn too_many_requests(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
        }
    }

    /// 500: an error of the service. The log has the details, the answer does not.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal-error",
            "the service made a mistake; it is in its log",
        )
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

/// Collects the fields of a request that are wrong, so that a client gets all of them at once.
#[derive(Debug, Default)]
pub struct Invalid(Vec<FieldError>);

impl Invalid {
    /// Nothing is wrong so far.
    pub fn none() -> Self {
        Self::default()
    }

    /// Records what is wrong with the field at `pointer`, unless `holds`.
    pub fn require(&mut self, holds: bool, pointer: impl Into<String>, detail: impl Into<String>) {
        if !holds {
            self.0.push(FieldError {
                pointer: pointer.into(),
                detail: detail.into(),
            });
        }
    }

    /// Records what is wrong with a name or a title of at most `max` characters: see
    /// [`text::check_line`].
    pub fn require_line(&mut self, pointer: &str, text: &str, max: usize) {
        let length = text.chars().count();
        if !(1..=max).contains(&length) {
            self.require(false, pointer, format!("must have 1 to {max} characters"));
        } else if let Err(unfit) = text::check_line(text) {
            self.require(false, pointer, unfit.to_string());
        }
    }

    /// 422 if anything was wrong.
    ///
    /// # Errors
    /// The problem with all recorded fields.
    pub fn check(self) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        let all: Vec<String> = self
            .0
            .iter()
            .map(|error| {
                format!(
                    "{}: {}",
                    error.pointer.trim_start_matches('/'),
                    error.detail
                )
            })
            .collect();
        Err(Problem {
            errors: self.0,
            ..Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-field",
                all.join("; "),
            )
        })
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(retry_after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, retry_after.as_secs().max(1).into());
        }
        response
    }
}

impl From<DbErr> for Problem {
    fn from(error: DbErr) -> Self {
        if database::is_damage(&error) {
            tracing::error!(%error, "the database is damaged");
            return Self::unavailable(
                "the store is damaged; /readyz?verbose shows what is being done",
                STORE_RETRY,
            );
        }
        if database::code(&error) == Some(ErrorCode::OperationInterrupted) {
            tracing::warn!(%error, "a read took too long");
            return Self::unavailable("the answer took too long; try again", STORE_RETRY);
        }
        tracing::error!(%error, "a database statement failed");
        Self::internal()
    }
}

impl<E: Into<Problem>> From<WriteError<E>> for Problem {
    fn from(error: WriteError<E>) -> Self {
        match error {
            WriteError::Refused(refused) => refused.into(),
            WriteError::Panicked => Self::internal(),
            WriteError::Busy => Self::unavailable(
                "too many writes wait; nothing was written; try again",
                Duration::from_secs(1),
            ),
            WriteError::Full => Self {
                retry_after: Some(FULL_RETRY),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "disk-full",
                    "the disk of the service is full, so nothing was written; an operator must \
                     make room, and the service then resumes automatically: try again then",
                )
            },
            WriteError::Moved => Self::unavailable(
                "the database file was renamed, deleted or replaced, so nothing was written; \
                 /readyz?verbose shows what an operator must do",
                STORE_RETRY,
            ),
            // `Unknown`, which is also what to assume of a reason that is added later.
            _ => Self::unavailable(
                "this may or may not have been written; send it again with the same \
                 Idempotency-Key, or the same id, to be sure",
                Duration::from_secs(1),
            ),
        }
    }
}

impl From<idempotency::Refusal> for Problem {
    fn from(refusal: idempotency::Refusal) -> Self {
        match refusal {
            idempotency::Refusal::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "this Idempotency-Key was used for another request; use a new key for a new request",
            ),
            idempotency::Refusal::Erased => Self::new(
                StatusCode::GONE,
                "erased",
                "what this Idempotency-Key created has been erased since",
            ),
        }
    }
}

impl From<Behind> for Problem {
    fn from(behind: Behind) -> Self {
        match behind {
            Behind::DeadLettered { .. } => Self {
                retry_after: Some(PARKED_RETRY),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "event-parked",
                    format!("{behind}. An operator must retry or discard it; try again then"),
                )
            },
            Behind::UnknownSource(_) => Self::bad_request(behind.to_string()),
            // `NotYet`, `Incomplete`, and what is added later.
            _ => Self::unavailable(format!("{behind}; try again"), Duration::from_secs(1)),
        }
    }
}

impl From<NotPositions> for Problem {
    fn from(error: NotPositions) -> Self {
        Self::bad_request(error.to_string())
    }
}
