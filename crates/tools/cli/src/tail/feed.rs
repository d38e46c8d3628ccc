//! Reading one stream for `tail`, whatever the broker does.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::datetime::{self, DateTime};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::Stream;
use client::direct::{Event, Reader};
use client::{Nats, complain};
use headwater::EventId;
use serde::Deserialize;
use serde_json::{Value, json};
use terminal::output::printable;
use tokio::sync::mpsc;

use super::event::{Arrived, time};

/// How long to wait before a stream is looked at again that had nothing new.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// How long it waits before it tries again.
const PAUSE: Duration = Duration::from_millis(500);

/// How much further back it looks each time for the last so many events.
const FURTHER: u64 = 4;

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    /// With the last so many.
    Last(u64),
    /// With what is not older.
    At(DateTime),
    /// With this sequence.
    From(u64),
}

/// What a feed has to say.
#[derive(Debug)]
pub(crate) enum News {
    Event(Arrived),
    /// What was there when it began has been told.
    CaughtUp,
    /// It could not be read to its end, and nobody wants to wait.
    Failed(anyhow::Error),
}

/// How far a feed is.
#[derive(Debug)]
struct Cursor {
    stream_created: DateTime,
    /// All up to here was told.
    sequence: u64,
    reader: Reader,
}

/// The events of one stream that are meant.
#[derive(Debug)]
pub(crate) struct Feed {
    nats: Nats,
    stream: String,
    source: String,
    filters: Vec<String>,
    begin: Begin,
    is_followed: bool,
    news: mpsc::Sender<News>,
    place: Option<Cursor>,
    is_caught_up: bool,
    /// The newest own event that was told.
    newest: Option<EventId>,
    /// Where the stream begins anew, filled by its relay: up to here all was told.
    told: Option<EventId>,
}

impl Feed {
    pub(crate) fn new(
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
            place: None,
            is_caught_up: false,
            newest: None,
            told: None,
        }
    }

    /// Reads until nobody listens any more; where it is not followed, until it fails.
    pub(crate) async fn run(mut self) {
        let mut is_told = false;
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
                is_told = false;
            }
            if !is_told {
                is_told = true;
                let why = printable(&headwater::causes(&failure));
                complain(&format!("{}: {why}; trying again", self.stream));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn sequence(&self) -> Option<u64> {
        self.place.as_ref().map(|place| place.sequence)
    }

    /// Ends without an error when nobody listens any more, or all was told and is not followed.
    async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            let stream = self.nats.jetstream.get_stream(&self.stream).await;
            let stream = stream.context("reach the stream")?;
            let mut place = match self.place.take() {
                Some(place) => self.go_on(place, &stream),
                None => self.begin(&stream).await.context("read the stream")?,
            };
            let told = self.tell(&mut place, &stream).await;
            self.place = Some(place);
            let is_heard = told.context("read the stream")? && self.catch_up().await;
            if !is_heard || !self.is_followed {
                return Ok(());
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Tells what the stream has; whether somebody still listens.
    async fn tell(&mut self, place: &mut Cursor, stream: &Stream) -> anyhow::Result<bool> {
        let last = stream.cached_info().state.last_sequence;
        while let Some(event) = place.reader.next(stream, last).await? {
            place.sequence = event.sequence;
            if self.is_told(&event) {
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
        place.sequence = last;
        Ok(true)
    }

    /// Whether somebody still listens.
    async fn catch_up(&mut self) -> bool {
        self.is_caught_up || {
            self.is_caught_up = true;
            self.news.send(News::CaughtUp).await.is_ok()
        }
    }

    /// Whether it was told before the stream was lost: its relay fills it again.
    fn is_told(&mut self, event: &Event) -> bool {
        let (Some(told), Some(id)) = (&self.told, &event.id) else {
            return false;
        };
        let is_old = told.epoch == id.epoch && id.position <= told.position;
        if !is_old {
            self.told = None;
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
        Ok(self.place(stream, next, 0))
    }

    /// Where it was, or where to begin in another stream, or in one that lost its end: what is
    /// filled in again is known.
    fn go_on(&mut self, place: Cursor, stream: &Stream) -> Cursor {
        let info = stream.cached_info();
        let last = info.state.last_sequence;
        let is_same = place.stream_created == info.created;
        if is_same && place.sequence <= last {
            return place;
        }
        self.told.clone_from(&self.newest);
        let known = if is_same { last } else { 0 };
        self.place(stream, known + 1, known)
    }

    fn place(&self, stream: &Stream, next: u64, sequence: u64) -> Cursor {
        Cursor {
            stream_created: stream.cached_info().created,
            sequence,
            reader: Reader::new(&self.nats, &self.filters, next),
        }
    }

    /// The sequence of the last so many events, or of some more: of those that are meant, which may
    /// be few among many. Looks further back until there are as many.
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

/// The sequence of the first event that is not older than `at`; none if all are older.
async fn since(nats: &Nats, stream: &Stream, at: DateTime) -> anyhow::Result<Option<u64>> {
    #[derive(Deserialize)]
    struct Answer {
        message: Value,
    }
    let subject = format!("STREAM.MSG.GET.{}", stream.cached_info().config.name);
    let request = json!({"start_time": time(at), "next_by_subj": ">"});
    match nats.jetstream.request(subject, &request).await? {
        Response::Ok(Answer { message }) => Ok(message["seq"].as_u64()),
        Response::Err { error } if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => Ok(None),
        Response::Err { error } => Err(error.into()),
    }
}

/// So long ago.
pub(crate) fn ago(since: Duration) -> anyhow::Result<DateTime> {
    let since = i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
    let nanos = datetime::now().unix_timestamp_nanos().saturating_sub(since);
    datetime::from_nanos(nanos.max(0)).map_err(|error| anyhow::anyhow!(error))
}
