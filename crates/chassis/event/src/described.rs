//! What the events of a source look like, as the schema bucket has it.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// An entry of the bucket: what the events of one source look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// The source, which is also the entry's key.
    pub source: String,
    /// The kinds of its events.
    pub events: Vec<DescribedEvent>,
    /// The questions that it answers over the bus.
    #[serde(default)]
    pub questions: Vec<DescribedQuestion>,
    /// A serialized `FileDescriptorSet` in base64: the messages' files and all that they import.
    pub descriptors: String,
}

/// A [`Kind`](crate::schema::Kind) of event, as the bucket has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedEvent {
    /// `<source>.v<version>.<event>`; a partition follows it on the bus.
    pub subject: String,
    /// The full name of its protobuf message.
    pub message: String,
    /// The field that is its key.
    pub key: String,
}

/// A [`Question`](crate::schema::Question), as the bucket has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedQuestion {
    /// Its subject.
    pub subject: String,
    /// The full name of the question's protobuf message.
    pub asked: String,
    /// The full name of the answer's.
    pub answered: String,
}

impl Described {
    /// The bytes of the `FileDescriptorSet`.
    ///
    /// # Errors
    /// It is not base64.
    pub fn descriptors(&self) -> anyhow::Result<Vec<u8>> {
        STANDARD
            .decode(&self.descriptors)
            .context("read the descriptors")
    }

    /// The full names of all messages that it speaks of.
    pub(crate) fn messages(&self) -> Vec<&str> {
        let events = self.events.iter().map(|event| &*event.message);
        let questions = self.questions.iter();
        let questions = questions.flat_map(|question| [&*question.asked, &*question.answered]);
        events.chain(questions).collect()
    }
}
