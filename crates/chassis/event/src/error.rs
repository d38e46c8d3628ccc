//! Why a schema cannot be used.

/// Why a [`Schema`](crate::schema::Schema), or what the bucket has of one, cannot be used. The
/// author corrects the `.proto` file or what the service passes to `publish`; another source's
/// schema is for its author to correct.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The descriptors are not base64.
    #[error("decode the descriptors")]
    NotBase64(#[from] base64::DecodeError),
    /// The descriptors are not a serialized `FileDescriptorSet`.
    #[error("decode the descriptors")]
    NotDescriptors(#[from] prost::DecodeError),
    /// A message is missing from the descriptors.
    #[error("the descriptors have no message {message}")]
    NoMessage {
        /// The full name of the message.
        message: String,
    },
    /// An event's message does not have the key that is declared for it.
    #[error("the key of {subject} is declared as {key}, but {message} has no such string field")]
    NoKey {
        /// The subject of the event.
        subject: String,
        /// The name of the field.
        key: String,
        /// The full name of the message.
        message: String,
    },
    /// The source has no event.
    #[error("the schema has no event whose subject begins with {0}")]
    NoEvents(String),
}
