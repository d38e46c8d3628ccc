//! The schemas of events, which the sources publish in a KV bucket.
//!
//! The tool itself contains no event type; see [`headwater::schema`].

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::context::KeyValueErrorKind;
use headwater::schema::{BUCKET, Described, DescribedEvent};
use headwater::version::NEWER_FIELD;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::mask;
pub use crate::mask::{MASK, Members};
use crate::nats::Nats;

/// The shortest time between two requests for a source's schema, when an event is of an unknown
/// type or has unknown fields.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long a schema is used without asking again.
const KEPT: Duration = Duration::from_secs(30);

/// Protobuf field names as in the HTTP API, and all fields, even empty ones.
const AS_THE_API: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .skip_default_fields(false);

/// The schema of one source.
#[derive(Debug)]
pub struct Schema {
    pub described: Described,
    pool: DescriptorPool,
    /// The full names of the fields that hold personal data.
    personal: BTreeSet<String>,
}

/// Why a payload is not decoded.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(
        "there is no schema of the events of {0}; `nats kv ls headwater-schemas` lists the sources with one"
    )]
    NoSchema(String),
    #[error("{subject} is not an event type of {source_name}; its types are: {known}")]
    UnknownKind {
        subject: String,
        source_name: String,
        known: String,
    },
    #[error("not a valid {message}: {why}")]
    Malformed { message: String, why: String },
}

/// A decoded event.
#[derive(Debug)]
pub struct Decoded {
    pub json: Box<RawValue>,
    pub key: Option<String>,
    /// Whether the event has fields that are not in the schema: the schema is older than the event.
    pub has_unknown: bool,
}

/// A decoded event whose personal fields are masked.
#[derive(Debug)]
pub struct Masked {
    /// With masks.
    pub json: Box<RawValue>,
    /// Without masks.
    pub whole: Box<RawValue>,
    /// The value of the key field, without a mask.
    pub key: Option<String>,
    pub is_key_personal: bool,
    /// Whether a field is masked.
    pub is_masked: bool,
}

impl Schema {
    /// Reads an entry of the bucket.
    pub fn read(entry: &[u8]) -> anyhow::Result<Self> {
        let described: Described = serde_json::from_slice(entry).context("read the schema")?;
        let pool = DescriptorPool::decode(&described.descriptors()?[..])
            .context("read the descriptors of the schema")?;
        let personal = described.personal.iter().cloned().collect();
        Ok(Self {
            described,
            pool,
            personal,
        })
    }

    /// The event type of `subject`, with or without a partition.
    pub fn event(&self, subject: &str) -> Option<&DescribedEvent> {
        let kind = kind_of(subject);
        self.described
            .events
            .iter()
            .find(|event| event.subject == kind)
    }

    /// The message type of `subject`: an event or a request.
    pub fn message(&self, subject: &str) -> Result<MessageDescriptor, Problem> {
        let event = self.event(subject).map(|event| &event.message);
        let questions = self.described.questions.iter();
        let mut asked = questions.filter(|question| question.subject == subject);
        let name = event.or_else(|| asked.next().map(|question| &question.asked));
        name.and_then(|name| self.pool.get_message_by_name(name))
            .ok_or_else(|| self.unknown(subject))
    }

    /// The error for a subject that is not in the schema.
    pub fn unknown(&self, subject: &str) -> Problem {
        let known = self.described.events.iter().map(|event| &*event.subject);
        Problem::UnknownKind {
            subject: subject.to_owned(),
            source_name: self.described.source.clone(),
            known: known.collect::<Vec<_>>().join(", "),
        }
    }

    pub fn decode(&self, subject: &str, payload: &[u8]) -> Result<Decoded, Problem> {
        let message = self.message(subject)?;
        let malformed = |why: String| Problem::Malformed {
            message: message.full_name().to_owned(),
            why,
        };
        let decoded = DynamicMessage::decode(message.clone(), payload)
            .map_err(|error| malformed(error.to_string()))?;
        let json = json(&decoded).map_err(|error| malformed(format!("{error:#}")))?;
        let key = self.event(subject).and_then(|event| key(&decoded, event));
        Ok(Decoded {
            json,
            key,
            has_unknown: decoded
                .unknown_fields()
                .any(|field| field.number() != NEWER_FIELD),
        })
    }
}

impl Schema {
    /// Masks the personal fields of a decoded event.
    fn mask(&self, subject: &str, decoded: Decoded) -> Result<Masked, Problem> {
        let message = self.message(subject)?;
        let (json, is_masked) = mask::masked(&message, &decoded.json, &self.personal);
        Ok(Masked {
            json,
            whole: decoded.json,
            key: decoded.key,
            is_key_personal: self.is_key_personal(subject),
            is_masked,
        })
    }

    /// Whether this kind of event has personal fields. An unknown kind counts as one with some.
    fn has_personal(&self, subject: &str) -> bool {
        let message = self.message(subject);
        message.map_or(true, |message| {
            mask::has_any(&message, &self.personal, &mut BTreeSet::new())
        })
    }

    /// Whether the key of this kind of event is personal. That of an unknown kind counts as personal.
    fn is_key_personal(&self, subject: &str) -> bool {
        self.event(subject).is_none_or(|event| {
            let (message, key) = (&event.message, &event.key);
            self.personal.contains(&format!("{message}.{key}"))
        })
    }
}

/// The key of an event.
pub fn key(event: &DynamicMessage, kind: &DescribedEvent) -> Option<String> {
    let key = event.get_field_by_name(&kind.key)?;
    key.as_str().map(str::to_owned)
}

/// Writes the fields in their order, which a map of values would lose.
fn json(message: &DynamicMessage) -> anyhow::Result<Box<RawValue>> {
    let mut text = Vec::new();
    message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &AS_THE_API)?;
    let text = String::from_utf8(text).context("write JSON")?;
    Ok(RawValue::from_string(text)?)
}

/// A subject without its partition: its first three tokens.
pub fn kind_of(subject: &str) -> &str {
    match subject.match_indices('.').nth(2) {
        Some((end, _)) => &subject[..end],
        None => subject,
    }
}

/// The source whose schema describes the messages on `subject`.
pub fn source_of(subject: &str) -> &str {
    let mut tokens = subject.split('.');
    match tokens.next() {
        Some("inquiry") => tokens.next().unwrap_or_default(),
        first => first.unwrap_or_default(),
    }
}

/// Whether this is a valid source name. Foreign subjects may begin with another one.
pub fn is_source(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(is_plain)
}

/// The entry of `source` in the bucket, if there is one.
pub async fn fetch(nats: &Nats, source: &str) -> anyhow::Result<Option<Vec<u8>>> {
    if !is_source(source) {
        return Ok(None);
    }
    let store = match nats.jetstream.get_key_value(BUCKET).await {
        Ok(store) => store,
        Err(error) if error.kind() == KeyValueErrorKind::GetBucket => {
            nats.expect_connected()?;
            return Ok(None);
        }
        Err(error) => return Err(error).context("open the bucket headwater-schemas"),
    };
    match store.get(source).await {
        Ok(entry) => Ok(entry.map(Into::into)),
        Err(error) => {
            nats.expect_connected()?;
            Err(error).with_context(|| format!("read the schema of {source}"))
        }
    }
}

/// The schemas of sources, fetched when first needed.
#[derive(Debug)]
pub struct Schemas {
    nats: Nats,
    known: HashMap<String, (Option<Schema>, Instant)>,
}

impl Schemas {
    pub fn new(nats: Nats) -> Self {
        Self {
            nats,
            known: HashMap::new(),
        }
    }

    pub async fn decode(&mut self, subject: &str, payload: &[u8]) -> Result<Decoded, Problem> {
        let source = source_of(subject);
        self.refresh(source).await;
        let decoded = self.decode_as_known(source, subject, payload);
        let is_whole = decoded.as_ref().is_ok_and(|decoded| !decoded.has_unknown);
        let asked = self.known.get(source).map(|(_, asked)| *asked);
        if is_whole || asked.is_some_and(|asked| asked.elapsed() < AGAIN_AFTER) {
            return decoded;
        }
        self.ask(source).await;
        self.decode_as_known(source, subject, payload)
    }

    /// [`decode`](Self::decode), with the values of personal fields masked.
    pub async fn decode_masked(
        &mut self,
        subject: &str,
        payload: &[u8],
    ) -> Result<Masked, Problem> {
        let decoded = self.decode(subject, payload).await?;
        let source = source_of(subject);
        match self.known.get(source) {
            Some((Some(schema), _)) => schema.mask(subject, decoded),
            _ => Err(Problem::NoSchema(source.to_owned())),
        }
    }

    /// Whether this kind of event has personal fields. Without its schema, it counts as one with
    /// some.
    pub async fn has_personal(&mut self, subject: &str) -> bool {
        let source = source_of(subject);
        self.refresh(source).await;
        let schema = self.schema(source);
        schema.is_none_or(|schema| schema.has_personal(subject))
    }

    /// Whether the key of this kind of event is personal. Without its schema, it counts as personal.
    pub async fn is_key_personal(&mut self, subject: &str) -> bool {
        let source = source_of(subject);
        self.refresh(source).await;
        let schema = self.schema(source);
        schema.is_none_or(|schema| schema.is_key_personal(subject))
    }

    /// Whether events of `source` hold personal data. Without its schema, they count as personal.
    pub async fn is_personal(&mut self, source: &str) -> bool {
        self.refresh(source).await;
        let schema = self.schema(source);
        schema.is_none_or(|schema| !schema.personal.is_empty())
    }

    fn schema(&self, source: &str) -> Option<&Schema> {
        let known = self.known.get(source);
        known.and_then(|(schema, _)| schema.as_ref())
    }

    /// Fetches the schema of `source` if it is unknown or old: a new version of the source may mark
    /// more fields as personal.
    async fn refresh(&mut self, source: &str) {
        let known = self.known.get(source);
        if known.is_none_or(|(_, asked)| asked.elapsed() >= KEPT) {
            self.ask(source).await;
        }
    }

    fn decode_as_known(
        &self,
        source: &str,
        subject: &str,
        payload: &[u8],
    ) -> Result<Decoded, Problem> {
        match self.known.get(source) {
            Some((Some(schema), _)) => schema.decode(subject, payload),
            _ => Err(Problem::NoSchema(source.to_owned())),
        }
    }

    /// Fetches the schema of `source`. On failure, a known schema is kept.
    async fn ask(&mut self, source: &str) {
        let fetched = fetch(&self.nats, source).await.ok().flatten();
        let schema = fetched.and_then(|entry| Schema::read(&entry).ok());
        let before = self.known.remove(source).and_then(|(schema, _)| schema);
        let known = (schema.or(before), Instant::now());
        self.known.insert(source.to_owned(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_its_kind_and_its_source() {
        assert_eq!(kind_of("orders.v1.placed.17"), "orders.v1.placed");
        assert_eq!(kind_of("orders.v1.placed"), "orders.v1.placed");
        assert_eq!(kind_of("orders"), "orders");
        assert_eq!(source_of("orders.v1.placed.17"), "orders");
        assert_eq!(source_of("inquiry.users.v1.asked"), "users");
        assert_eq!(source_of(""), "");
    }
}
