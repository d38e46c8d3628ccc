//! The schema of a source's events, as stored in the schema bucket.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::SchemaError;

/// An entry of the bucket: the schema of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// The source, which is also the entry's key.
    pub source: String,
    /// The kinds of its events.
    pub events: Vec<DescribedEvent>,
    /// The questions that it answers by request-reply.
    #[serde(default)]
    pub questions: Vec<DescribedQuestion>,
    /// A serialized `FileDescriptorSet` in base64: the messages' files and their imports.
    pub descriptors: String,
    /// The full names of the fields that hold personal data, which tools mask: the descriptors
    /// here do not have the option.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub personal: Vec<String>,
}

/// A [`Kind`](crate::schema::Kind) of event, as stored in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedEvent {
    /// `<source>.v<version>.<event>`; on the bus, a partition follows.
    pub subject: String,
    /// The full name of its protobuf message.
    pub message: String,
    /// The field that holds its key.
    pub key: String,
}

/// A [`Question`](crate::schema::Question), as stored in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedQuestion {
    /// Its subject.
    pub subject: String,
    /// The full name of the question's protobuf message.
    pub asked: String,
    /// The full name of the answer's protobuf message.
    pub answered: String,
}

impl Described {
    /// The bytes of the `FileDescriptorSet`.
    ///
    /// # Errors
    /// [`SchemaError::NotBase64`].
    pub fn descriptors(&self) -> Result<Vec<u8>, SchemaError> {
        Ok(STANDARD.decode(&self.descriptors)?)
    }

    /// The full names of all its messages.
    pub(crate) fn messages(&self) -> Vec<&str> {
        let events = self.events.iter().map(|event| &*event.message);
        let questions = self.questions.iter();
        let questions = questions.flat_map(|question| [&*question.asked, &*question.answered]);
        events.chain(questions).collect()
    }
}
