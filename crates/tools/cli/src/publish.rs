//! `headwater publish`: publishes an event by hand.

use std::fmt::{self, Display, Formatter};
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use async_nats::jetstream::message::PublishMessage;
use client::schemas::{self, Problem, Schema};
use client::{Common, Nats, complain};
use headwater::{MAX_PAYLOAD, PARTITIONS, partition, stream};
use prost::Message as _;
use prost_reflect::DynamicMessage;
use serde::Serialize;
use terminal::Exit;
use terminal::output::printable;

/// Publish an event by hand
///
/// SUBJECT is the event's type, such as `orders.v1.placed`. The partition follows from the event's
/// key; it may also be given as the last token. The event is JSON with the fields of its protobuf
/// message, as `headwater tail` shows them. Unknown fields and wrong types are refused.
///
/// The event is in no outbox and has no position. Projections apply it once, by its sequence. It is
/// lost with its stream, and a later rebuild does not have it. Real events should come from the
/// service that owns them: use this command for tests, and for repairs if you know the
/// consequences.
///
/// Exit codes: 0 stored, 1 not stored or outcome unknown, 2 the event is not valid, 4 the broker
/// cannot be reached.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("body").args(["json", "file"])))]
pub struct Args {
    /// The event's type, with or without a partition
    #[arg(value_name = "SUBJECT")]
    pub subject: String,

    /// The event; without --json or --file, it is read from standard input
    #[arg(long, short, value_name = "JSON", env = "HEADWATER_PUBLISH_JSON")]
    pub json: Option<String>,

    /// A file with the event
    #[arg(long, short, value_name = "FILE", env = "HEADWATER_PUBLISH_FILE")]
    pub file: Option<PathBuf>,
}

/// The stored event.
#[derive(Debug, Serialize)]
struct Published {
    stream: String,
    sequence: u64,
    subject: String,
    message: String,
    key: String,
    bytes: usize,
}

/// Why an event is not valid, and what would be.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error(transparent)]
    Subject(#[from] Problem),
    #[error("`{0}` is not a partition: leave it out, or write a number from 0 to 63")]
    Partition(String),
    #[error("not a valid {message}: {why}; its fields are {fields}")]
    Event {
        message: String,
        why: String,
        fields: String,
    },
    #[error("its key, the field {0}, is empty")]
    NoKey(String),
    #[error("it has {0} bytes, an event may have {MAX_PAYLOAD} at most")]
    TooLarge(usize),
}

/// A valid event.
struct Ready {
    source: String,
    subject: String,
    message: String,
    key: String,
    payload: Vec<u8>,
}

/// Publishes the event and prints where it is stored.
pub(crate) async fn command(common: &Common, args: Args) -> anyhow::Result<Exit> {
    let text = text(&args)?;
    let nats = common.connect().await?;
    let source = schemas::source_of(&args.subject);
    let schema = schemas::fetch(&nats, source).await?;
    let schema = schema.map(|entry| Schema::read(&entry)).transpose()?;
    let ready = schema
        .ok_or_else(|| Wrong::Subject(Problem::NoSchema(source.to_owned())))
        .and_then(|schema| make(&schema, &args.subject, &text));
    match ready {
        Ok(ready) => {
            common.print(&publish(&nats, ready).await?)?;
            Ok(Exit::Done)
        }
        Err(wrong) => common.refuse(&format!("{}: {wrong}", args.subject), Exit::Usage),
    }
}

fn text(args: &Args) -> anyhow::Result<String> {
    if let Some(json) = &args.json {
        return Ok(json.clone());
    }
    if let Some(file) = &args.file {
        let read = std::fs::read_to_string(file);
        return read.with_context(|| format!("read the event from {}", file.display()));
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("read the event from standard input")?;
    Ok(text)
}

/// Builds the event that `text` describes.
fn make(schema: &Schema, subject: &str, text: &str) -> Result<Ready, Wrong> {
    let message = schema.message(subject)?;
    let kind = schema
        .event(subject)
        .ok_or_else(|| schema.unknown(subject))?;
    let wrong = |error: serde_json::Error| Wrong::Event {
        message: kind.message.clone(),
        why: error.to_string(),
        fields: message
            .fields()
            .map(|field| field.name().to_owned())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let event = DynamicMessage::deserialize(message.clone(), &mut json).map_err(wrong)?;
    json.end().map_err(wrong)?;
    let key = schemas::key(&event, kind).filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| Wrong::NoKey(kind.key.clone()))?;
    let given = subject.strip_prefix(&*kind.subject).unwrap_or_default();
    let given = place(&key, given.strip_prefix('.'))?;
    let payload = event.encode_to_vec();
    if payload.len() > MAX_PAYLOAD {
        return Err(Wrong::TooLarge(payload.len()));
    }
    Ok(Ready {
        source: schema.described.source.clone(),
        subject: format!("{}.{given}", kind.subject),
        message: kind.message.clone(),
        key,
        payload,
    })
}

/// The `given` partition, or that of `key`.
fn place(key: &str, given: Option<&str>) -> Result<u64, Wrong> {
    let own = partition(key);
    let Some(token) = given else { return Ok(own) };
    let given = number(token).ok_or_else(|| Wrong::Partition(token.to_owned()))?;
    if given != own {
        complain(&printable(&format!(
            "{key} belongs in partition {own}, not {given}: consumers of partition {own} alone would miss it"
        )));
    }
    Ok(given)
}

/// The number of a partition as subjects write it.
fn number(token: &str) -> Option<u64> {
    let number: u64 = token.parse().ok()?;
    (number < PARTITIONS && number.to_string() == token).then_some(number)
}

async fn publish(nats: &Nats, ready: Ready) -> anyhow::Result<Published> {
    let stream = stream::name(&ready.source);
    let found = nats.stream(&stream).await?;
    found.with_context(|| {
        format!(
            "the stream {stream} does not exist: is {} running?",
            ready.source
        )
    })?;
    let bytes = ready.payload.len();
    let message = PublishMessage::build()
        .payload(ready.payload.into())
        .expected_stream(&stream);
    let sent = nats.jetstream.send_publish(ready.subject.clone(), message);
    let unknown = "the event may be stored nevertheless, check with `headwater tail`";
    let ack = sent.await.context(unknown)?.await.context(unknown)?;
    Ok(Published {
        stream: ack.stream,
        sequence: ack.sequence,
        subject: ready.subject,
        message: ready.message,
        key: ready.key,
        bytes,
    })
}

impl Display for Published {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stored as sequence {} of {} on {}; it has no position: projections apply it once, and it is lost with the stream",
            self.sequence,
            self.stream,
            printable(&self.subject)
        )
    }
}
