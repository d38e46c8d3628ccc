//! The schema of a source's events, stored for tools in a JetStream KV bucket.
//!
//! # What
//!
//! The bucket [`BUCKET`] has an entry per source: the subjects of its events, their protobuf
//! messages, their key fields, and the descriptors of those messages with their imports.
//! With it, `headwater decode`, `tail` and `publish` read and write events of services that they
//! were not built with. It is JSON: `nats kv get headwater-schemas orders --raw` shows it.
//!
//! The chassis knows no event types: the service supplies a [`Schema`] in one line of its `run`
//! (`Service::publish`).
//!
//! # Which schema wins
//!
//! During a rolling upgrade, two versions of a service run at the same time, and each checks the
//! entry periodically. If each wrote its own schema, the entry would flap. So a source does this:
//!
//! | The bucket has | The source |
//! | --- | --- |
//! | no schema, or one that cannot be read | writes its own |
//! | everything in the source's own schema, or more | leaves it: an older program does not remove what a newer one added, and the newer program's events stay readable after a rollback |
//! | less than the source's own schema | writes its own |
//! | a contradicting schema (a field was renamed or has another type) | writes its own if it has just started, and otherwise leaves it |
//!
//! So each process overwrites a contradicting schema at most once, and the last process to start
//! wins. That suits development; in production the contract of the events only grows.
//! Every write expects the revision that was read. If another process wrote first, the source
//! checks again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_types::FileDescriptorSet;

pub use crate::described::{Described, DescribedEvent, DescribedQuestion};
pub use crate::error::SchemaError;
use crate::facts::{check, prune};
use crate::marked;

/// The KV bucket. Never rename.
pub const BUCKET: &str = "headwater-schemas";

/// The events and questions of a service, as the service declares them.
///
/// It may cover several sources. Each source takes the events whose subject begins with its name,
/// and the questions whose subject has its name as the second token.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The kinds of events.
    pub events: &'static [Kind],
    /// The questions that the service answers.
    pub questions: &'static [Question],
    /// A serialized `FileDescriptorSet` of all messages and their imports.
    pub descriptors: &'static [u8],
}

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// `<source>.v<version>.<event>`: [`Event::SUBJECT`](crate::Event::SUBJECT).
    pub subject: &'static str,
    /// The full name of its protobuf message.
    pub message: &'static str,
    /// The string field that holds its key: [`Event::key`](crate::Event::key).
    pub key: &'static str,
}

/// A question that a service answers by request-reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// `inquiry.<source>.v<version>.<question>`.
    pub subject: &'static str,
    /// The full name of the question's protobuf message.
    pub asked: &'static str,
    /// The full name of the answer's protobuf message.
    pub answered: &'static str,
}

impl Schema {
    /// The part that belongs to `source`.
    ///
    /// # Errors
    /// The descriptors cannot be decoded ([`SchemaError::NotDescriptors`]), a message is missing from
    /// them ([`SchemaError::NoMessage`]), a message has no key field ([`SchemaError::NoKey`]), or
    /// `source` has no event ([`SchemaError::NoEvents`]).
    pub fn of(&self, source: &str) -> Result<Described, SchemaError> {
        let described = Described {
            source: source.to_owned(),
            events: own(self.events, |kind| kind.subject.split('.').next(), source)
                .map(|kind| DescribedEvent {
                    subject: kind.subject.to_owned(),
                    message: kind.message.to_owned(),
                    key: kind.key.to_owned(),
                })
                .collect(),
            questions: own(
                self.questions,
                |asked| asked.subject.split('.').nth(1),
                source,
            )
            .map(|question| DescribedQuestion {
                subject: question.subject.to_owned(),
                asked: question.asked.to_owned(),
                answered: question.answered.to_owned(),
            })
            .collect(),
            descriptors: String::new(),
            personal: Vec::new(),
        };
        let mut set = FileDescriptorSet::decode(self.descriptors)?;
        prune(&mut set, &described.messages());
        check(&set, &described)?;
        if described.events.is_empty() {
            return Err(SchemaError::NoEvents(source.to_owned()));
        }
        let is_needed = |name: &str| set.file.iter().any(|file| file.name() == name);
        let personal = marked::personal(self.descriptors, is_needed);
        Ok(Described {
            personal: personal?,
            descriptors: STANDARD.encode(set.encode_to_vec()),
            ..described
        })
    }
}

/// The items whose token is `source`.
fn own<T>(
    all: &'static [T],
    token: fn(&'static T) -> Option<&'static str>,
    source: &str,
) -> impl Iterator<Item = &'static T> {
    all.iter().filter(move |item| token(item) == Some(source))
}
