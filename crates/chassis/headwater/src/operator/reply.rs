//! Replies on the Services API: JSON within what one reply has room for, or a refusal.

use async_nats::service;
use headwater_nats::control::Endpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A refusal, with a code as HTTP has them.
pub(super) type Error = service::error::Error;

/// The request in `payload`; an empty one has no wishes.
pub(super) fn read<R: DeserializeOwned>(endpoint: Endpoint, payload: &[u8]) -> Result<R, Error> {
    let payload = if payload.trim_ascii().is_empty() {
        b"{}"
    } else {
        payload
    };
    serde_json::from_slice(payload)
        .map_err(|error| refuse(400, format!("send {}: {error}", endpoint.example())))
}

/// `answer` as JSON of at most `bytes_max` bytes: with as many of the first of its `items` as fit,
/// `least` at least.
pub(super) fn fit<A: Serialize, I>(
    answer: &mut A,
    bytes_max: usize,
    least: usize,
    items: fn(&mut A) -> &mut Vec<I>,
) -> Result<Vec<u8>, Error> {
    loop {
        let json = json(answer)?;
        let bytes = json.len();
        if bytes <= bytes_max {
            return Ok(json);
        }
        let items = items(answer);
        if items.len() <= least {
            return Err(too_large("the answer", bytes, bytes_max));
        }
        // As if all were of one size; one fewer at least.
        let fewer = (items.len() * bytes_max / bytes).min(items.len() - 1);
        items.truncate(fewer.max(least));
    }
}

/// Refuses an answer that has no room for `what`.
pub(super) fn too_large(what: &str, bytes: usize, bytes_max: usize) -> Error {
    let why = format!(
        "{what} takes {bytes} bytes, and a reply has room for {bytes_max}: `max_payload` of the NATS server or account"
    );
    refuse(413, why)
}

pub(super) fn json(answer: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(answer).map_err(|error| refuse(500, error.to_string()))
}

pub(super) fn refuse(code: usize, status: String) -> Error {
    Error { status, code }
}
