//! One source: its outbox compared with its stream.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use client::Nats;
use client::direct::Event;
use client::schemas::Schemas;
use headwater::operator::StatusAnswer;
use headwater::outbox::Row;
use serde::Serialize;
use serde_json::Value;
use terminal::Bar;
use tokio::time::Instant;

use super::merge::{Merge, OrderingDiff};
use super::outbox::Outbox;
use super::stored::Stored;

/// How many differences of a kind are shown as text. JSON has all, with the content of this many.
pub(crate) const SHOWN: usize = 20;

/// The pause before the end of a stream is read again.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// A source's stream and how it differs from the outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub source: String,
    /// The epoch of the source's database.
    pub epoch: String,
    /// The outbox's newest position at the start; the stream may have grown since.
    pub head: u64,
    /// Events of this epoch in the stream.
    pub events: u64,
    #[serde(flatten)]
    pub places: OrderingDiff,
    /// Events that differ from the outbox at their position.
    pub altered: Vec<Altered>,
    /// Events beyond the end of the outbox.
    pub ahead: Vec<Ahead>,
    /// Events without an id of the source, published by hand; not a difference.
    pub by_hand: u64,
    /// Events of former epochs of the source's database, by epoch; not a difference.
    pub former: BTreeMap<String, u64>,
    /// Sequences without an event; not a difference by itself.
    pub holes: u64,
}

/// An event that differs from the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Altered {
    pub position: u64,
    pub sequence: u64,
    /// What differs.
    pub what: What,
    /// The stream's event, for the first `SHOWN` differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Shown>,
    /// The outbox's event, for the first `SHOWN` differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbox: Option<Shown>,
}

/// The content of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub subject: String,
    /// Its decoded body, if the source has published a schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
    /// Its body in base64, if it does not decode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
}

/// What differs in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Subject,
    Payload,
    /// The outbox has no such position, although it has later ones.
    Row,
}

/// An event beyond the end of the outbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ahead {
    pub position: u64,
    pub sequence: u64,
    /// The stream's event, for the first `SHOWN` of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<Shown>,
}

impl Report {
    /// Whether the stream agrees with the outbox.
    pub fn agrees(&self) -> bool {
        self.places == OrderingDiff::default() && self.altered.is_empty() && self.ahead.is_empty()
    }
}

/// Compares a source's outbox with its stream, as far as `status` reports. `wait`: time for the
/// relay to publish missing events.
pub(crate) async fn check(
    nats: &Nats,
    status: &StatusAnswer,
    wait: Duration,
    bar: &Bar,
) -> anyhow::Result<Report> {
    let mut stored = Stored::new(nats, &status.service);
    let mut check = Check {
        outbox: Outbox::new(nats, &status.service, &status.epoch, status.head),
        merge: Merge::new(),
        schemas: Schemas::new(nats.clone()),
        read: 0,
        report: Report {
            source: status.service.clone(),
            epoch: status.epoch.clone(),
            head: status.head,
            ..Report::default()
        },
    };
    check.compare(&mut stored, wait, bar).await?;
    let mut report = check.report;
    report.holes = stored.last() - check.read;
    report.places = check.merge.end(report.head);
    Ok(report)
}

struct Check<'a> {
    outbox: Outbox<'a>,
    merge: Merge,
    schemas: Schemas,
    /// Number of events read, including foreign ones.
    read: u64,
    report: Report,
}

impl Check<'_> {
    /// Reads the stream to its end, and further until it has reached the outbox's head or `wait` is
    /// over.
    async fn compare(
        &mut self,
        stored: &mut Stored<'_>,
        wait: Duration,
        bar: &Bar,
    ) -> anyhow::Result<()> {
        let mut deadline = None;
        loop {
            stored.look().await?;
            while let Some(event) = stored.next().await? {
                self.take(event).await?;
                bar.at(self.merge.reached());
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + wait);
            if self.merge.reached() >= self.report.head || Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn take(&mut self, event: Event) -> anyhow::Result<()> {
        self.read += 1;
        let sequence = event.sequence;
        let report = &mut self.report;
        let Some(id) = event.id.as_ref().filter(|id| *id.source == *report.source) else {
            report.by_hand += 1;
            return Ok(());
        };
        let position = id.position;
        if *id.epoch != *report.epoch {
            *report.former.entry(id.epoch.to_string()).or_default() += 1;
            return Ok(());
        }
        report.events += 1;
        if self.outbox.ends_before(position).await? {
            let is_shown = self.report.ahead.len() < SHOWN;
            let stream = self.shown(is_shown, &event.subject, &event.payload).await;
            self.report.ahead.push(Ahead {
                position,
                sequence,
                stream,
            });
            return Ok(());
        }
        self.merge.add(position, sequence);
        self.compare_row(position, &event).await
    }

    /// Compares an event with the outbox at its position.
    async fn compare_row(&mut self, position: u64, event: &Event) -> anyhow::Result<()> {
        let row = self.outbox.row(position).await?;
        let Some(what) = differing(row, event) else {
            return Ok(());
        };
        let row = row.cloned();
        let is_shown = self.report.altered.len() < SHOWN;
        let stream = self.shown(is_shown, &event.subject, &event.payload).await;
        let outbox = match row {
            Some(row) => self.shown(is_shown, &row.subject, &row.payload).await,
            None => None,
        };
        self.report.altered.push(Altered {
            position,
            sequence: event.sequence,
            what,
            stream,
            outbox,
        });
        Ok(())
    }

    async fn shown(&mut self, is_shown: bool, subject: &str, payload: &[u8]) -> Option<Shown> {
        if !is_shown {
            return None;
        }
        let decoded = self.schemas.decode(subject, payload).await.ok();
        let event = decoded.and_then(|decoded| serde_json::from_str(decoded.json.get()).ok());
        Some(Shown {
            subject: subject.to_owned(),
            payload: event.is_none().then(|| STANDARD.encode(payload)),
            event,
        })
    }
}

fn differing(row: Option<&Row>, event: &Event) -> Option<What> {
    match row {
        None => Some(What::Row),
        Some(row) if row.subject != event.subject => Some(What::Subject),
        Some(row) if row.payload != *event.payload => Some(What::Payload),
        Some(_) => None,
    }
}
