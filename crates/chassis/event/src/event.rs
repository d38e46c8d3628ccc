//! An event, and the subject it is published on.

use bytes::Bytes;
use prost::DecodeError;

/// The number of partitions that a source's keys are spread over.
///
/// The partition is the last token of the subject. A key there would make the number of subjects
/// unbounded, which costs the server memory and publish rate. 64 partitions cost nothing, and
/// sharded replicas filter by them. Never change: an event's subject must stay the same when it
/// is published again.
pub const PARTITIONS: u64 = 64;

/// The largest payload of an event, in bytes. It is half of the server's default `max_payload`,
/// which also counts headers, so by default the relay can publish every event.
pub const MAX_PAYLOAD: usize = 512 * 1024;

/// An event: a protobuf message with a subject and a key.
///
/// ```
/// # use headwater_event::Event;
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct SensorRead { #[prost(string, tag = "1")] sensor: String }
///
/// impl Event for SensorRead {
///     const SUBJECT: &'static str = "sensors.v1.read";
///     fn key(&self) -> &str { &self.sensor }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "write `option (headwater.event) = {{ name: \"…\" key: \"…\" }};` into the message in its .proto file; `headwater_build::compile` then generates the `impl Event`"
)]
pub trait Event: prost::Message + Default {
    /// `<source>.v<version>.<event>`, without the partition. Never rename.
    const SUBJECT: &'static str;

    /// What the event is about. Events with the same key are applied in order; if one cannot be
    /// applied, only later events with its key wait.
    fn key(&self) -> &str;

    /// Decodes the payload of this event in `version`, the number in the subject: this version or
    /// an older one, which is upcast. `headwater-build` generates it for an event with older
    /// versions.
    ///
    /// # Errors
    /// The payload is not of that version.
    fn decode_version(version: u32, payload: Bytes) -> Result<Self, DecodeError> {
        let _ = version;
        Self::decode(payload)
    }
}

/// Why a payload cannot be decoded. The publisher is at fault.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Undecodable(pub String);

/// The partition of a key: FNV-1a (64 bit) modulo [`PARTITIONS`]. Never change.
pub fn partition(key: &str) -> u64 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash % PARTITIONS
}

/// The full subject of an event: `<source>.v<version>.<event>.<partition>`.
pub fn subject_of<E: Event>(event: &E) -> String {
    format!("{}.{}", E::SUBJECT, partition(event.key()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_never_move() {
        // FNV-1a test vectors: "" is cbf29ce484222325, "a" af63dc4c8601ec8c, "foobar" 85944171f73967e8.
        assert_eq!(partition(""), 0x25);
        assert_eq!(partition("a"), 0x8c % 64);
        assert_eq!(partition("foobar"), 0xe8 % 64);
    }
}
