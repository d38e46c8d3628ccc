//! An event, as it comes and as it is printed.

use std::fmt::{self, Display, Formatter};

use anyhow::anyhow;
use async_nats::datetime::DateTime;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use headwater::EventId;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::output::printable;
use crate::schemas::Schemas;

/// What is around an event, and its bytes.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) subject: String,
    pub(super) id: Option<EventId>,
    pub(super) sequence: u64,
    /// When the broker stored it.
    pub(super) at: DateTime,
    /// How many events the stream has behind it.
    pub(super) pending: u64,
    source: String,
    payload: Bytes,
}

impl Arrived {
    pub(super) fn read(source: &str, message: &Message) -> anyhow::Result<Self> {
        let info = message.info().map_err(|error| anyhow!(error))?;
        let headers = message.headers.as_ref();
        let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID));
        Ok(Self {
            subject: message.subject.to_string(),
            id: id.and_then(|id| id.as_str().parse().ok()),
            sequence: info.stream_sequence,
            at: info.published,
            pending: info.pending,
            source: source.to_owned(),
            payload: message.payload.clone(),
        })
    }

    /// Decodes it, if somebody has said what it looks like.
    pub(super) async fn decode(self, schemas: &mut Schemas) -> Line {
        let decoded = schemas.decode(&self.subject, &self.payload).await;
        let (event, key, problem) = match decoded {
            Ok(decoded) => (Some(decoded.json), decoded.key, None),
            Err(problem) => (None, None, Some(problem.to_string())),
        };
        Line {
            payload: problem.is_some().then(|| STANDARD.encode(&self.payload)),
            subject: self.subject,
            source: self.source,
            position: self.id.as_ref().map(|id| id.position),
            epoch: self.id.map(|id| id.epoch.to_string()),
            sequence: self.sequence,
            time: time(self.at),
            key,
            event,
            problem,
        }
    }
}

/// RFC 3339 in UTC, with milliseconds.
fn time(at: DateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond()
    )
}

/// An event on a line of its own.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    subject: String,
    source: String,
    /// Its place in the source's outbox; none for one that was published by hand.
    position: Option<u64>,
    epoch: Option<String>,
    sequence: u64,
    time: String,
    /// What the field of it says that is its key.
    pub(super) key: Option<String>,
    event: Option<Box<RawValue>>,
    /// Why it was not decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) problem: Option<String>,
    /// The bytes in base64, where they were not decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

impl Display for Line {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let place = match self.position {
            Some(position) => format!("{}:{position}", self.source),
            None => "by hand".to_owned(),
        };
        let subject = printable(&self.subject);
        write!(f, "{}  {place:14}  {subject:24}  ", self.time)?;
        match (&self.event, &self.problem) {
            (Some(event), _) => f.write_str(&printable(event.get())),
            (None, problem) => write!(
                f,
                "NOT DECODED: {}; in base64: {}",
                printable(problem.as_deref().unwrap_or_default()),
                self.payload.as_deref().unwrap_or_default()
            ),
        }
    }
}
