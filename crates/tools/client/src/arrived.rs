//! An event as received and as printed.

use std::fmt::{self, Display, Formatter};

use async_nats::datetime::DateTime;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use terminal::output::printable;

use crate::direct;
use crate::schemas::Schemas;

/// An event and the source whose stream holds it.
#[derive(Clone, Debug)]
pub struct Arrived {
    pub source: String,
    pub event: direct::Event,
}

impl Arrived {
    /// Decodes the event, if its source has published a schema.
    pub async fn decode(self, schemas: &mut Schemas) -> Line {
        let Self { source, event } = self;
        let decoded = schemas.decode(&event.subject, &event.payload).await;
        let (json, key, problem) = match decoded {
            Ok(decoded) => (Some(decoded.json), decoded.key, None),
            Err(problem) => (None, None, Some(problem.to_string())),
        };
        Line {
            payload: problem.is_some().then(|| STANDARD.encode(&event.payload)),
            subject: event.subject,
            source,
            position: event.id.as_ref().map(|id| id.position),
            epoch: event.id.map(|id| id.epoch.to_string()),
            sequence: event.sequence,
            time: time(event.at),
            key,
            event: json,
            problem,
        }
    }
}

/// RFC 3339 in UTC, with milliseconds.
pub fn time(at: DateTime) -> String {
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

/// An event, printed on one line.
#[derive(Debug, Serialize)]
pub struct Line {
    pub subject: String,
    pub source: String,
    /// Its position in the source's outbox; `None` if it was published by hand.
    pub position: Option<u64>,
    pub epoch: Option<String>,
    pub sequence: u64,
    pub time: String,
    /// The value of its key field.
    pub key: Option<String>,
    pub event: Option<Box<RawValue>>,
    /// Why it was not decoded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The payload in base64, if it was not decoded.
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
