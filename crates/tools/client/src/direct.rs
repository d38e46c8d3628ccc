//! Reads streams by direct get, in pages, without a consumer.
//!
//! nats-server does not check the subject that a consumer delivers to, so a user who may create
//! consumers may publish anywhere. Direct gets need only permission to read.
//!
//! Any replica of a stream may answer a direct get, even one that is behind. When a page is empty,
//! the stream's leader is asked for the next event: only the leader decides that there is none.

use std::collections::VecDeque;

use anyhow::{Context as _, anyhow, bail, ensure};
use async_nats::datetime::{self, DateTime};
use async_nats::header::{
    NATS_LAST_SEQUENCE, NATS_MESSAGE_ID, NATS_SEQUENCE, NATS_SUBJECT, NATS_TIME_STAMP,
};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageError, RawMessageErrorKind, Stream};
use async_nats::{HeaderMap, HeaderName, HeaderValue, Message};
use bytes::Bytes;
use futures_util::StreamExt as _;
use headwater::EventId;
use serde_json::json;

use crate::nats::Nats;

/// Events per page.
const PAGE: usize = 500;

/// Bytes per page, not counting its last event. The server cuts a connection that does not accept
/// its data within 10 s.
const PAGE_BYTES_MAX: usize = 128 * 1024;

/// An event in a stream.
#[derive(Clone, Debug)]
pub struct Event {
    pub subject: String,
    pub sequence: u64,
    /// When the broker stored it.
    pub at: DateTime,
    /// `None` if the event was published by hand.
    pub id: Option<EventId>,
    pub payload: Bytes,
}

/// Reads the events of a stream that match one of several filters, in the stream's order.
#[derive(Debug)]
pub struct Reader {
    nats: Nats,
    cursors: Vec<Cursor>,
}

/// How far one filter's events have been read.
#[derive(Debug)]
struct Cursor {
    filter: String,
    /// The first sequence that has not been requested.
    next: u64,
    page: VecDeque<Event>,
}

impl Reader {
    /// Begins at the sequence `next`. No event may match two of the `filters`.
    pub fn new(nats: &Nats, filters: &[String], next: u64) -> Self {
        let cursor = |filter: &String| Cursor {
            filter: filter.clone(),
            next: next.max(1),
            page: VecDeque::new(),
        };
        Self {
            nats: nats.clone(),
            cursors: filters.iter().map(cursor).collect(),
        }
    }

    /// The next event, up to the sequence `last` of `stream`. After an error, another call
    /// continues at the same place.
    pub async fn next(&mut self, stream: &Stream, last: u64) -> anyhow::Result<Option<Event>> {
        for cursor in &mut self.cursors {
            if cursor.page.is_empty() && cursor.next <= last {
                cursor.fill(&self.nats, stream, last).await?;
            }
        }
        let first = |cursor: &Cursor| Some(cursor.page.front()?.sequence);
        let heads = self.cursors.iter_mut();
        let heads = heads.filter(|cursor| first(cursor).is_some_and(|first| first <= last));
        let head = heads.min_by_key(|cursor| first(cursor));
        Ok(head.and_then(|cursor| cursor.page.pop_front()))
    }
}

impl Cursor {
    async fn fill(&mut self, nats: &Nats, stream: &Stream, last: u64) -> anyhow::Result<()> {
        if stream.cached_info().config.allow_direct {
            let whole = self.fetch(nats, &stream.cached_info().config.name).await;
            // Events of a page that was cut short are kept.
            if self.page.is_empty() {
                whole?;
            }
        }
        if self.page.is_empty() {
            let event = next(stream, &self.filter, self.next).await?;
            self.page.extend(event);
        }
        let end = self.page.back().map_or(last, |event| event.sequence);
        self.next = end + 1;
        Ok(())
    }

    /// Fetches a page from any replica; empty if that replica is behind.
    async fn fetch(&mut self, nats: &Nats, stream: &str) -> anyhow::Result<()> {
        let subject = format!("{}.DIRECT.GET.{stream}", nats.api_prefix);
        let request = json!({
            "seq": self.next,
            "next_by_subj": self.filter,
            "batch": PAGE,
            "max_bytes": PAGE_BYTES_MAX,
        });
        let request = request.to_string().into();
        let client = &nats.client;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        client.publish_with_reply(subject, inbox, request).await?;
        loop {
            // A slow link must carry one event in this time, not the whole page.
            let answer = tokio::time::timeout(nats.timeout, answers.next())
                .await
                .map_err(|_| anyhow!("no answer within {:?}", nats.timeout))?
                .context("the connection was closed")?;
            let headers = answer.headers.clone().unwrap_or_default();
            let status = answer.status.map_or(200, |status| status.as_u16());
            let event = match (header(&headers, NATS_SEQUENCE), status) {
                (Some(_), _) => Some(Event::read(answer, &headers)?),
                (None, 204) => None,
                // No event, or no replica answers direct gets.
                (None, 404 | 503) => return Ok(()),
                (None, status) => {
                    let why = answer.description.unwrap_or_default();
                    bail!("the server answered {status} {why}")
                }
            };
            let previous = self.page.back().map_or(0, |event| event.sequence);
            ensure!(
                number(&headers, NATS_LAST_SEQUENCE)? == previous,
                "an event was lost on the way"
            );
            match event {
                Some(event) => self.page.push_back(event),
                None => return Ok(()),
            }
        }
    }
}

/// The first event from the sequence `next` on, read from the stream's leader.
async fn next(stream: &Stream, filter: &str, next: u64) -> anyhow::Result<Option<Event>> {
    found(stream.get_first_raw_message_by_subject(filter, next).await)
}

/// The event at a sequence, read from the stream's leader.
pub(crate) async fn at<T>(stream: &Stream<T>, sequence: u64) -> anyhow::Result<Option<Event>> {
    found(stream.get_raw_message(sequence).await)
}

fn found(asked: Result<StreamMessage, RawMessageError>) -> anyhow::Result<Option<Event>> {
    match asked {
        Ok(message) => Ok(Some(message.into())),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Event {
    fn read(answer: Message, headers: &HeaderMap) -> anyhow::Result<Self> {
        let text = |name| header(headers, name).context("a header is missing");
        let at = datetime::parse_rfc3339(text(NATS_TIME_STAMP)?);
        Ok(Self {
            subject: text(NATS_SUBJECT)?.to_owned(),
            sequence: number(headers, NATS_SEQUENCE)?,
            at: at.map_err(|error| anyhow!(error))?,
            id: id(headers),
            payload: answer.payload,
        })
    }
}

impl From<StreamMessage> for Event {
    fn from(message: StreamMessage) -> Self {
        Self {
            subject: message.subject.to_string(),
            sequence: message.sequence,
            at: message.time,
            id: id(&message.headers),
            payload: message.payload,
        }
    }
}

fn id(headers: &HeaderMap) -> Option<EventId> {
    headers.get(NATS_MESSAGE_ID)?.as_str().parse().ok()
}

/// The last value: the server appends its own headers to the event's, which may have the same
/// names.
fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get_last(name).map(HeaderValue::as_str)
}

fn number(headers: &HeaderMap, name: HeaderName) -> anyhow::Result<u64> {
    let value = header(headers, name).context("a header is missing")?;
    value.parse().with_context(|| format!("read `{value}`"))
}
