//! Follows the events of one stream, through broker restarts and lost streams.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::datetime::{self, DateTime};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::Stream;
use headwater::EventId;
use serde::Deserialize;
use serde_json::{Value, json};
use terminal::output::printable;
use tokio::sync::mpsc;

use crate::arrived::{Arrived, time};
use crate::direct::{Event, Reader};
use crate::failure::complain;
use crate::nats::Nats;

/// How long to wait before rereading a stream that had nothing new.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long to wait before retrying.
const PAUSE: Duration = Duration::from_millis(500);

/// By which factor each attempt looks further back for the last N events.
const FURTHER: u64 = 4;

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub enum Begin {
    /// With the last N events.
    Last(u64),
    /// With events that are not older.
    At(DateTime),
    /// With this sequence.
    From(u64),
}

/// What a feed reports.
#[derive(Debug)]
pub enum News {
    Event(Arrived),
    /// All events stored at the start have been sent.
    CaughtUp,
    /// The stream could not be read to its end, and is not followed.
    Failed(anyhow::Error),
}

/// How far a feed has read.
#[derive(Debug)]
struct Cursor {
    stream_created: DateTime,
    /// All events up to here have been sent.
    sequence: u64,
    reader: Reader,
}

/// The matching events of one stream.
#[derive(Debug)]
pub struct Feed {
    nats: Nats,
    stream: String,
    source: String,
    filters: Vec<String>,
    begin: Begin,
    is_followed: bool,
    news: mpsc::Sender<News>,
    cursor: Option<Cursor>,
    is_caught_up: bool,
    /// The newest event with an id that was sent.
    newest: Option<EventId>,
    /// Set while the relay refills the stream: events up to here have already been sent.
    refilled_to: Option<EventId>,
}

impl Feed {
    /// Events of the `stream` of a source on subjects that match a filter go to `news`.
    /// `is_followed`: also those that are stored later.
    pub fn new(
        nats: Nats,
        (stream, source): (String, String),
        filters: Vec<String>,
        begin: Begin,
        is_followed: bool,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            nats,
            stream,
            source,
            filters,
            begin,
            is_followed,
            news,
            cursor: None,
            is_caught_up: false,
            newest: None,
            refilled_to: None,
        }
    }

    /// Reads until the receiver is dropped; if the stream is not followed, until its end or the
    /// first failure.
    pub async fn run(mut self) {
        let mut is_reported = false;
        while !self.news.is_closed() {
            let sequence = self.sequence();
            let Err(failure) = self.follow().await else {
                return;
            };
            if !self.is_followed {
                let _ = self.news.send(News::Failed(failure)).await;
                return;
            }
            if self.sequence() != sequence {
                is_reported = false;
            }
            if !is_reported {
                is_reported = true;
                let why = printable(&headwater::causes(failure.as_ref()));
                complain(&format!("{}: {why}; trying again", self.stream));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn sequence(&self) -> Option<u64> {
        self.cursor.as_ref().map(|cursor| cursor.sequence)
    }

    /// Returns `Ok` when the receiver is dropped, or when everything is sent and the stream is not
    /// followed.
    async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            let stream = self.nats.jetstream.get_stream(&self.stream).await;
            let stream = stream.context("reach the stream")?;
            let mut cursor = match self.cursor.take() {
                Some(cursor) => self.resume(cursor, &stream),
                None => self.begin(&stream).await.context("read the stream")?,
            };
            let sent = self.send(&mut cursor, &stream).await;
            self.cursor = Some(cursor);
            let is_heard = sent.context("read the stream")? && self.catch_up().await;
            if !is_heard || !self.is_followed {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Sends what the stream has; returns whether the receiver still listens.
    async fn send(&mut self, cursor: &mut Cursor, stream: &Stream) -> anyhow::Result<bool> {
        let last = stream.cached_info().state.last_sequence;
        while let Some(event) = cursor.reader.next(stream, last).await? {
            cursor.sequence = event.sequence;
            if self.is_refilled(&event) {
                continue;
            }
            if event.id.is_some() {
                self.newest.clone_from(&event.id);
            }
            let source = self.source.clone();
            let news = News::Event(Arrived { source, event });
            if self.news.send(news).await.is_err() {
                return Ok(false);
            }
        }
        cursor.sequence = last;
        Ok(true)
    }

    /// Returns whether the receiver still listens.
    async fn catch_up(&mut self) -> bool {
        self.is_caught_up || {
            self.is_caught_up = true;
            self.news.send(News::CaughtUp).await.is_ok()
        }
    }

    /// Whether the event was sent before the stream was lost: the relay refills it.
    fn is_refilled(&mut self, event: &Event) -> bool {
        let (Some(last), Some(id)) = (&self.refilled_to, &event.id) else {
            return false;
        };
        let is_old = last.epoch == id.epoch && id.position <= last.position;
        if !is_old {
            self.refilled_to = None;
        }
        is_old
    }

    /// Where to begin in a stream that was not read before.
    async fn begin(&self, stream: &Stream) -> anyhow::Result<Cursor> {
        let end = stream.cached_info().state.last_sequence + 1;
        let next = match self.begin {
            Begin::From(sequence) => sequence,
            Begin::At(at) => since(&self.nats, stream, at).await?.unwrap_or(end),
            Begin::Last(events) => self.last(stream, events).await?,
        };
        Ok(self.cursor(stream, next, 0))
    }

    /// Continues at `cursor`; in another stream, or one that lost its end, begins again: refilled
    /// events are recognised by their ids.
    fn resume(&mut self, cursor: Cursor, stream: &Stream) -> Cursor {
        let info = stream.cached_info();
        let last = info.state.last_sequence;
        let is_same = cursor.stream_created == info.created;
        if is_same && cursor.sequence <= last {
            return cursor;
        }
        self.refilled_to.clone_from(&self.newest);
        let known = if is_same { last } else { 0 };
        self.cursor(stream, known + 1, known)
    }

    fn cursor(&self, stream: &Stream, next: u64, sequence: u64) -> Cursor {
        Cursor {
            stream_created: stream.cached_info().created,
            sequence,
            reader: Reader::new(&self.nats, &self.filters, next),
        }
    }

    /// The sequence from which about `events` matching events follow. Matching events may be rare,
    /// so it looks further back until there are enough.
    async fn last(&self, stream: &Stream, events: u64) -> anyhow::Result<u64> {
        let state = &stream.cached_info().state;
        let (first, last) = (state.first_sequence.max(1), state.last_sequence);
        let mut span = events;
        loop {
            let start = (last + 1).saturating_sub(span).max(first);
            let mut reader = Reader::new(&self.nats, &self.filters, start);
            let mut found = 0;
            while found < events && reader.next(stream, last).await?.is_some() {
                found += 1;
            }
            if found == events || start == first {
                return Ok(start);
            }
            span = span.saturating_mul(FURTHER);
        }
    }
}

/// The sequence of the first event not older than `at`; `None` if all are older.
pub async fn since(nats: &Nats, stream: &Stream, at: DateTime) -> anyhow::Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Answer {
        message: Value,
    }
    let subject = format!("STREAM.MSG.GET.{}", stream.cached_info().config.name);
    // Within a millisecond, order counts too.
    let nanos = at.nanosecond();
    let second = time(at);
    let second = second.split('.').next().unwrap_or_default();
    let request = json!({"start_time": format!("{second}.{nanos:09}Z"), "next_by_subj": ">"});
    match nats.jetstream.request(subject, &request).await? {
        Response::Ok(Answer { message }) => Ok(message["seq"].as_u64()),
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(error.into()),
    }
}

/// The time that long ago.
pub fn ago(since: Duration) -> anyhow::Result<DateTime> {
    let since = i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
    let nanos = datetime::now().unix_timestamp_nanos().saturating_sub(since);
    datetime::from_nanos(nanos.max(0)).map_err(|error| anyhow::anyhow!(error))
}
