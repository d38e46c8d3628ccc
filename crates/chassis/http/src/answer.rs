//! Answers to writes and reads, with their positions.

use std::fmt::Display;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headwater_event::Position;
use serde::{Deserialize, Serialize};

/// The header with the position of a write, or the positions that a read includes. A client that
/// sends it with a read sees at least these.
pub const POSITION: HeaderName = HeaderName::from_static("headwater-position");

/// The answer to a create. Stored with the idempotency key and returned again for a retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    location: String,
    position: Position,
    body: String,
}

impl Answer {
    /// 201: created at `location`.
    ///
    /// # Panics
    /// When `body` cannot be written as JSON.
    pub fn created(location: String, position: Position, body: &impl Serialize) -> Self {
        Self {
            location,
            position,
            body: serde_json::to_string(body).expect("answers are plain data"),
        }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let json = HeaderValue::from_static("application/json");
        let mut response = (
            StatusCode::CREATED,
            [(header::CONTENT_TYPE, json)],
            self.body,
        )
            .into_response();
        if let Ok(location) = HeaderValue::try_from(self.location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        with_position(&self.position, response)
    }
}

/// Adds the position header to an answer.
pub fn with_position(position: &impl Display, answer: impl IntoResponse) -> Response {
    let mut response = answer.into_response();
    if let Ok(value) = HeaderValue::try_from(position.to_string()) {
        response.headers_mut().insert(POSITION, value);
    }
    response
}
