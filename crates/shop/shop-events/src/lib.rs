//! The events of the shop, and the questions that services may ask each other over the bus: types
//! generated from `proto/`, with their subjects and keys.
//!
//! The services share nothing else. `tests/contract.txt` lists every subject and field number; a
//! test allows only additions.

#![warn(missing_docs)]

use std::time::{Duration, SystemTime};

use headwater_event::Undecodable;
use uuid::Uuid;

pub mod inquiry;
pub mod search;

pub use prost_types::Timestamp;

headwater_event::include_events!();

/// Parses an id of an event.
///
/// # Errors
/// The text is not a UUID: the event's publisher made a mistake.
pub fn id(text: &str) -> Result<Uuid, Undecodable> {
    text.parse()
        .map_err(|_| Undecodable(format!("`{text}` is not a UUID")))
}

/// Milliseconds since 1970 as a protobuf timestamp, whose text is RFC 3339. Earlier times become 0.
pub fn timestamp(ms: i64) -> Timestamp {
    let since_1970 = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    Timestamp::from(SystemTime::UNIX_EPOCH + since_1970)
}

/// The inverse of [`timestamp`]: milliseconds since 1970, rounded down.
pub fn millis(timestamp: &Timestamp) -> i64 {
    timestamp
        .seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(timestamp.nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_milliseconds_here_and_rfc_3339_as_text() {
        assert_eq!(timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        let then = timestamp(1_700_000_000_123);
        assert_eq!(then.to_string(), "2023-11-14T22:13:20.123Z");
        assert_eq!(millis(&then), 1_700_000_000_123);
    }
}
