//! Replies on the Services API: JSON within the size limit of a reply, or a refusal.

use async_nats::service;
use headwater_nats::control::Endpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A refusal, with an HTTP status as its code.
pub(super) type Error = service::error::Error;

/// The request in `payload`; an empty payload and `null` mean `{}`.
pub(super) fn read<R: DeserializeOwned>(endpoint: Endpoint, payload: &[u8]) -> Result<R, Error> {
    let payload = match payload.trim_ascii() {
        b"" | b"null" => b"{}",
        payload => payload,
    };
    serde_json::from_slice(payload)
        .map_err(|error| refuse(400, format!("send {}: {error}", endpoint.example())))
}

/// `answer` as JSON of at most `bytes_max` bytes, with as many of its first `items` as fit, and at
/// least `least` of them.
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
        // Assumes items of equal size; removes at least one.
        let fewer = (items.len() * bytes_max / bytes).min(items.len() - 1);
        items.truncate(fewer.max(least));
    }
}

/// Refuses a request because `what` does not fit into a reply.
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
