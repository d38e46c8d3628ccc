//! What a source's events look like, kept where tools find it: in a JetStream KV bucket.
//!
//! # What
//!
//! The bucket [`BUCKET`] has an entry for each source: which subjects its events have, which
//! protobuf message each one is, which field is its key, and the descriptors of those messages
//! with all that they import. With it `headwater decode`, `tail` and `publish` read and write
//! events of services that they were not built with. It is JSON: `nats kv get headwater-schemas
//! orders --raw` shows it.
//!
//! The chassis knows no event of anybody: the service hands over a [`Schema`], in one line of its
//! `run` (`Service::describe`).
//!
//! # Which one stays
//!
//! During a rolling upgrade two versions of a service run at the same time, and each looks at the
//! entry now and then. Were each to write its own, the entry would flap. So a source
//!
//! | finds in the bucket | and |
//! | --- | --- |
//! | nothing, or what cannot be read | writes its own |
//! | what says all that its own says, or more | leaves it: an older program does not take away what a newer one has added, and events of the newer one stay readable after it is rolled back |
//! | what says less than its own | writes its own |
//! | what contradicts its own (a field was renamed or has another type) | writes its own if it has just started, and leaves it ever after |
//!
//! so that each process writes a contradicting schema once at most. The last one to start is
//! right: that is how a developer works, and in production the contract of the events only grows.
//! Every write expects the revision that was read; who comes second looks again.

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_types::FileDescriptorSet;

pub use crate::described::{Described, DescribedEvent, DescribedQuestion};
use crate::facts::{check, prune};

/// The KV bucket. Never rename.
pub const BUCKET: &str = "headwater-schemas";

/// What a service's events and questions look like, as the service knows it.
///
/// It may be that of several sources: each takes what is its own, by the subjects' first token.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// The kinds of events.
    pub events: &'static [Kind],
    /// The questions that can be asked.
    pub questions: &'static [Question],
    /// A serialized `FileDescriptorSet` with all the messages, and what they import.
    pub descriptors: &'static [u8],
}

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// `<source>.v<version>.<event>`: [`Event::SUBJECT`](crate::Event::SUBJECT).
    pub subject: &'static str,
    /// The full name of its protobuf message.
    pub message: &'static str,
    /// The field that is its key, a string: [`Event::key`](crate::Event::key).
    pub key: &'static str,
}

/// A question, as in `inquiry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// `inquiry.<source>.v<version>.<question>`.
    pub subject: &'static str,
    /// The full name of the question's protobuf message.
    pub asked: &'static str,
    /// The full name of the answer's.
    pub answered: &'static str,
}

impl Schema {
    /// What is `source`'s of it.
    ///
    /// # Errors
    /// It contradicts itself: the descriptors do not have a message, or a message its key.
    pub fn of(&self, source: &str) -> anyhow::Result<Described> {
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
        };
        let mut set =
            FileDescriptorSet::decode(self.descriptors).context("read the descriptors")?;
        prune(&mut set, &described.messages());
        check(&set, &described)?;
        ensure!(
            !described.events.is_empty(),
            "it has no event whose subject begins with {source}"
        );
        Ok(Described {
            descriptors: STANDARD.encode(set.encode_to_vec()),
            ..described
        })
    }
}

/// Those whose token is `source`.
fn own<T>(
    all: &'static [T],
    token: fn(&'static T) -> Option<&'static str>,
    source: &str,
) -> impl Iterator<Item = &'static T> {
    all.iter().filter(move |one| token(one) == Some(source))
}
