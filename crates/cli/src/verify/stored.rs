//! A source's stream, read once from its first event to its last.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use futures_util::StreamExt as _;
use headwater::{EventId, stream};

use crate::nats::Nats;

/// How many events one pull brings, and how many bytes: heartbeats wait behind them, and must not
/// be missed on a slow link.
const PULL: usize = 500;
const PULL_BYTES_MAX: usize = 1024 * 1024;

/// A silent server is noticed after two of these.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How long one pull stays open at the server.
const EXPIRES: Duration = Duration::from_secs(30);

/// What we leave on the server goes by itself, too, when we are killed.
const FORGET_AFTER: Duration = Duration::from_mins(1);

/// How often reading is begun again without getting any further.
const TRIES: u32 = 3;

/// An event in a stream.
pub(super) struct Event {
    pub(super) sequence: u64,
    pub(super) subject: String,
    /// None for one that somebody published by hand.
    pub(super) id: Option<EventId>,
    pub(super) payload: Bytes,
}

/// A stream that is being read.
pub(super) struct Stored<'a> {
    nats: &'a Nats,
    name: String,
    /// Until where it is read: its last sequence when that was looked at.
    last: u64,
    /// The first sequence that was not read.
    next: u64,
    /// When the stream was made, in nanoseconds since 1970.
    created: Option<i128>,
    feed: Option<Feed>,
}

/// Events from a place in the stream on.
struct Feed {
    stream: Stream,
    consumer: String,
    messages: pull::Stream,
    delivered: u64,
}

impl<'a> Stored<'a> {
    pub(super) fn new(nats: &'a Nats, source: &str) -> Self {
        Self {
            nats,
            name: stream::name(source),
            last: 0,
            next: 1,
            created: None,
            feed: None,
        }
    }

    /// The stream's last sequence, as far as it is read.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Looks where the stream ends now. One that is not there yet ends before its first event.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        let Some(stream) = self.find().await? else {
            return Ok(());
        };
        let info = stream.cached_info();
        let created = info.created.unix_timestamp_nanos();
        ensure!(
            self.created.is_none_or(|before| before == created),
            "the stream {} was made anew while it was read: verify again",
            self.name
        );
        self.created = Some(created);
        self.last = info.state.last_sequence;
        Ok(())
    }

    async fn find(&self) -> anyhow::Result<Option<Stream>> {
        match self.nats.jetstream.get_stream(&self.name).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if is_missing(&error.kind()) => Ok(None),
            Err(error) => {
                self.nats.expect_connected()?;
                Err(error).with_context(|| format!("look at the stream {}", self.name))
            }
        }
    }

    /// The next event, up to where the stream ended when it was looked at.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        let mut tries = 1;
        while self.next <= self.last {
            match self.read().await {
                Ok(event) => return Ok(event),
                Err(error) if tries == TRIES => {
                    self.nats.expect_connected()?;
                    return Err(error.context(format!("read the stream {}", self.name)));
                }
                Err(_) => {
                    tries += 1;
                    self.close().await;
                }
            }
        }
        Ok(None)
    }

    /// Errors when an event got lost on the way here, or none comes: then reading begins again
    /// at the place where it was.
    async fn read(&mut self) -> anyhow::Result<Option<Event>> {
        if self.feed.is_none() {
            match self.open().await? {
                Some(feed) => self.feed = Some(feed),
                None => return Ok(self.end()),
            }
        }
        let feed = self.feed.as_mut().expect("it was opened");
        let message = tokio::time::timeout(EXPIRES, feed.messages.next())
            .await
            .context("wait for an event")?
            .context("the server ended it")??;
        let info = message.info().map_err(|error| anyhow!(error))?;
        feed.delivered += 1;
        ensure!(
            info.consumer_sequence == feed.delivered,
            "an event was lost on the way here"
        );
        let (sequence, is_last) = (info.stream_sequence, info.pending == 0);
        if sequence > self.last {
            // What was the last event is there no more, and this one is new.
            self.close().await;
            return Ok(self.end());
        }
        self.next = sequence + 1;
        if is_last {
            self.end();
        }
        Ok(Some(event(sequence, message)))
    }

    fn end(&mut self) -> Option<Event> {
        self.next = self.last + 1;
        None
    }

    /// None when there is nothing from here on.
    async fn open(&self) -> anyhow::Result<Option<Feed>> {
        let stream = self.find().await?.context("it is gone")?;
        let config = pull::Config {
            description: Some("headwater verify".to_owned()),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.next,
            },
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGET_AFTER,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let name = consumer.cached_info().name.clone();
        if consumer.cached_info().num_pending == 0 {
            stream.delete_consumer(&name).await?;
            return Ok(None);
        }
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL)
            .max_bytes_per_batch(PULL_BYTES_MAX)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await?;
        Ok(Some(Feed {
            stream,
            consumer: name,
            messages,
            delivered: 0,
        }))
    }

    /// Ends reading; to be called at the end, so that nothing is left on the server.
    pub(super) async fn close(&mut self) {
        if let Some(feed) = self.feed.take() {
            drop(feed.messages);
            // If it cannot be deleted now, the server forgets it by itself.
            let _ = feed.stream.delete_consumer(&feed.consumer).await;
        }
    }
}

fn event(sequence: u64, message: jetstream::Message) -> Event {
    let headers = message.headers.as_ref();
    let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID));
    Event {
        sequence,
        id: id.and_then(|id| id.as_str().parse().ok()),
        subject: message.message.subject.to_string(),
        payload: message.message.payload,
    }
}

fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}
