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
//! `run` ([`Service::describe`](crate::Service::describe)).
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

mod facts;
mod keeper;

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::jetstream::stream::{self, DiscardPolicy, StorageType};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use serde::{Deserialize, Serialize};

use crate::{bus, monitor};

pub use keeper::Keeper;

/// The KV bucket. Never rename.
pub const BUCKET: &str = "headwater-schemas";

/// How many older schemas of a source the bucket keeps, for a person who wonders what changed.
const HISTORY: i64 = 5;

/// The server's own default, which it gives a bucket.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

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

/// A question, as in [`inquiry`](crate::inquiry).
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
        facts::prune(&mut set, &described.messages());
        facts::check(&set, &described)?;
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

/// A [`Kind`] of event, as the bucket has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedEvent {
    /// `<source>.v<version>.<event>`; a partition follows it on the bus.
    pub subject: String,
    /// The full name of its protobuf message.
    pub message: String,
    /// The field that is its key.
    pub key: String,
}

/// A [`Question`], as the bucket has it.
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
    fn messages(&self) -> Vec<&str> {
        let events = self.events.iter().map(|event| &*event.message);
        let questions = self.questions.iter();
        let questions = questions.flat_map(|question| [&*question.asked, &*question.answered]);
        events.chain(questions).collect()
    }
}

/// The settings of the stream under the bucket, which are those of any KV bucket, and such that
/// `nats kv info` and `nats stream info` explain what it is.
pub fn bucket(replicas: usize) -> stream::Config {
    let mut metadata = bus::metadata([("kind", "schemas")]);
    monitor::merge(&mut metadata, &monitor::of_stream(replicas));
    stream::Config {
        name: format!("KV_{BUCKET}"),
        description: Some(
            "What the events of each source look like; made anew by the services".to_owned(),
        ),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: HISTORY,
        max_message_size: -1,
        max_consumers: -1,
        deny_delete: true,
        // One key's roll-up would take away those of the others.
        allow_rollup: false,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        num_replicas: replicas,
        metadata,
        ..stream::Config::default()
    }
}
