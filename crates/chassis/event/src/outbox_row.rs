//! A row of the outbox.

use serde::{Deserialize, Serialize};

/// An event as stored in the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its position, from 1.
    pub position: u64,
    /// `<source>.v<version>.<event>.<partition>`.
    pub subject: String,
    /// The event's key.
    pub key: String,
    /// The protobuf message; base64 in JSON.
    #[serde(with = "base64_text")]
    pub payload: Vec<u8>,
    /// W3C trace context of the command, if it was traced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub traceparent: Option<String>,
    /// When it was appended, in milliseconds since 1970.
    pub recorded_at: i64,
}

mod base64_text {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD
            .decode(String::deserialize(input)?)
            .map_err(D::Error::custom)
    }
}
