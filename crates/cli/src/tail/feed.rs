//! Reading one stream for `tail`, whatever the broker does.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::datetime::{self, DateTime};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Info, Stream};
use futures_util::StreamExt as _;
use headwater::EventId;
use tokio::sync::mpsc;

use super::event::Arrived;
use crate::complain;
use crate::nats::Nats;
use crate::output::printable;

/// A silent consumer is noticed after two of these.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long one pull request stays open at the server.
const EXPIRES: Duration = Duration::from_secs(10);

/// How long the server keeps a consumer that nobody reads.
const INACTIVE: Duration = Duration::from_secs(30);

/// How long it waits before it tries again.
const PAUSE: Duration = Duration::from_millis(500);

/// How much further back it looks each time for the last so many events.
const FURTHER: u64 = 4;

/// Where to begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begin {
    /// With the last so many.
    Last(u64),
    /// With what is not older.
    At(DateTime),
    /// With this sequence.
    From(u64),
}

/// What a feed has to say.
#[derive(Debug)]
pub(super) enum News {
    Event(Arrived),
    /// What was there when it began has been told.
    CaughtUp,
    /// It could not be read to its end, and nobody wants to wait.
    Failed(anyhow::Error),
}

/// How far a feed is.
#[derive(Clone, Copy, Debug)]
struct Place {
    stream_created: DateTime,
    sequence: u64,
}

/// The events of one stream that are meant.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) nats: Nats,
    pub(super) stream: String,
    pub(super) source: String,
    pub(super) filters: Vec<String>,
    pub(super) begin: Begin,
    is_followed: bool,
    news: mpsc::Sender<News>,
    place: Option<Place>,
    is_caught_up: bool,
    /// The newest own event that was told.
    newest: Option<EventId>,
    /// Where the stream begins anew, filled by its relay: up to here all was told.
    told: Option<EventId>,
}

impl Feed {
    pub(super) fn new(
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
    pub(super) async fn run(mut self) {
        let mut is_told = false;
        while !self.news.is_closed() {
            let sequence = self.place.map(|place| place.sequence);
            let Err(failure) = self.follow().await else {
                return;
            };
            if !self.is_followed {
                let _ = self.news.send(News::Failed(failure)).await;
                return;
            }
            if self.place.map(|place| place.sequence) != sequence {
                is_told = false;
            }
            if !is_told {
                is_told = true;
                let why = printable(&format!("{failure:#}"));
                complain(&format!("{}: {why}; trying again", self.stream));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends without an error when nobody listens any more.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let stream = self.nats.jetstream.get_stream(&self.stream).await;
        let stream = stream.context("reach the stream")?;
        let consumer = self.open(&stream).await.context("read the stream")?;
        if consumer.cached_info().num_pending == 0 && !self.catch_up().await {
            return Ok(());
        }
        let mut events = consumer
            .stream()
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await
            .context("read the stream")?;
        loop {
            let next = tokio::select! {
                next = events.next() => next,
                () = self.news.closed() => {
                    // The server would forget it by itself, but later.
                    let _ = stream.delete_consumer(&consumer.cached_info().name).await;
                    return Ok(());
                }
            };
            let message = next.context("the consumer ended")??;
            let event = Arrived::read(&self.source, &message)?;
            let is_last = event.pending == 0;
            if !self.tell(event).await || (is_last && !self.catch_up().await) {
                return Ok(());
            }
        }
    }

    /// Whether somebody still listens.
    async fn tell(&mut self, event: Arrived) -> bool {
        if let Some(place) = &mut self.place {
            place.sequence = event.sequence;
        }
        if self.is_told(&event) {
            return true;
        }
        if event.id.is_some() {
            self.newest.clone_from(&event.id);
        }
        self.news.send(News::Event(event)).await.is_ok()
    }

    /// Whether somebody still listens.
    async fn catch_up(&mut self) -> bool {
        self.is_caught_up || {
            self.is_caught_up = true;
            self.news.send(News::CaughtUp).await.is_ok()
        }
    }

    /// Whether it was told before the stream was lost: its relay fills it again.
    fn is_told(&mut self, event: &Arrived) -> bool {
        let (Some(told), Some(id)) = (&self.told, &event.id) else {
            return false;
        };
        let is_old = told.epoch == id.epoch && id.position <= told.position;
        if !is_old {
            self.told = None;
        }
        is_old
    }

    /// Opens a consumer at its place; at the beginning, where that is.
    async fn open(&mut self, stream: &Stream) -> anyhow::Result<PullConsumer> {
        let info = stream.cached_info();
        let last = info.state.last_sequence;
        let (known, begin) = match self.place {
            None => (None, self.begin),
            Some(place) if place.stream_created == info.created && place.sequence <= last => {
                (Some(place.sequence), Begin::From(place.sequence + 1))
            }
            Some(place) => {
                // Another stream, or one that lost its end: what is filled in again is known.
                self.told = self.newest.clone();
                let is_same = place.stream_created == info.created;
                let known = if is_same { last } else { 0 };
                (Some(known), Begin::From(known + 1))
            }
        };
        self.place = Some(Place {
            stream_created: info.created,
            sequence: known.unwrap_or_default(),
        });
        match begin {
            Begin::From(sequence) => self.consumer(stream, from(sequence)).await,
            Begin::At(start_time) => {
                let policy = DeliverPolicy::ByStartTime { start_time };
                self.consumer(stream, policy).await
            }
            Begin::Last(events) => self.last(stream, info, events).await,
        }
    }

    /// A consumer that begins with the last so many events, or some more: of those that are
    /// meant, which may be few among many. Looks further back until there are as many.
    async fn last(
        &mut self,
        stream: &Stream,
        info: &Info,
        events: u64,
    ) -> anyhow::Result<PullConsumer> {
        let (first, end) = (
            info.state.first_sequence.max(1),
            info.state.last_sequence + 1,
        );
        let mut span = events;
        loop {
            let start = end.saturating_sub(span).max(first);
            let consumer = self.consumer(stream, from(start)).await?;
            if consumer.cached_info().num_pending >= events || start <= first {
                return Ok(consumer);
            }
            stream.delete_consumer(&consumer.cached_info().name).await?;
            span = span.saturating_mul(FURTHER);
        }
    }

    async fn consumer(
        &self,
        stream: &Stream,
        deliver_policy: DeliverPolicy,
    ) -> anyhow::Result<PullConsumer> {
        let settings = pull::Config {
            description: Some("headwater tail: somebody looks".to_owned()),
            deliver_policy,
            ack_policy: AckPolicy::None,
            filter_subjects: self.filters.clone(),
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        Ok(stream.create_consumer(settings).await?)
    }
}

fn from(start_sequence: u64) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence {
        start_sequence: start_sequence.max(1),
    }
}

/// So long ago.
pub(super) fn ago(since: Duration) -> anyhow::Result<DateTime> {
    let since = i128::try_from(since.as_nanos()).unwrap_or(i128::MAX);
    let nanos = datetime::now().unix_timestamp_nanos().saturating_sub(since);
    datetime::from_nanos(nanos.max(0)).map_err(|error| anyhow::anyhow!(error))
}
