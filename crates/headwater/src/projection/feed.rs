//! Reading a source's stream: the durable consumer, placed at the checkpoint.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow};
use async_nats::Subject;
use async_nats::header::{HeaderName, NATS_MESSAGE_ID};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{ConsumerErrorKind, Info, Stream};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::coop;

use super::runner::Config;
use crate::bus;
use crate::envelope::{Envelope, EventId};
use crate::monitor::{self, Thresholds};
use crate::stream;
use crate::telemetry::trace;

/// A silent consumer is noticed after two of these: its server is gone, and of a cluster another
/// one has it, or will.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// How long one pull request stays open at the server.
const EXPIRES: Duration = Duration::from_secs(30);

/// What one pull may bring: large enough that the server is never waited for, and well within
/// what the client keeps before it drops (65,536).
const PULL_MAX: usize = 20_000;

/// The same in bytes, which bounds the memory of a reader whose events are large; also what is
/// read ahead of what is being applied.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// What the chunks hold that events are copied to, in bytes.
const CHUNK: usize = 64 * 1024;

/// The header of a trace, as the client keeps it.
const TRACEPARENT: HeaderName = HeaderName::from_static(trace::TRACEPARENT);

/// How long a reader that is far behind waits for a batch to fill.
const GATHER: Duration = Duration::from_millis(100);

/// Events of a source, from a place in its stream on.
pub(super) struct Feed {
    source: Arc<str>,
    messages: pull::Stream,
    batch_max: usize,
    is_drained: bool,
    /// What was read and not taken yet, and the bytes of it.
    ahead: Vec<Envelope>,
    ahead_bytes: usize,
    /// Where what is kept of an event is copied to.
    chunk: BytesMut,
    /// How many events the server has behind the one that was read last.
    pending: u64,
    /// The identity of the one that was read last, if it had one.
    last: Option<EventId>,
    /// The last sequence that was known when it was opened.
    known: u64,
    /// When the first new one of `ahead` was stored in the stream.
    stored: Option<SystemTime>,
    /// The same of the batch that was taken last.
    batch_stored: Option<SystemTime>,
}

/// Where a feed starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// Which stream it is.
    pub(super) stream_created: i64,
    /// The last sequence that is known.
    pub(super) known: u64,
}

impl Start {
    /// The place after a checkpoint at `sequence` of the stream made at `stream_created`.
    ///
    /// In another stream than the checkpoint's all is read again: positions tell what is new. In
    /// the same stream that is shorter now (the broker was put back from an older copy) what is
    /// left of it is known, so reading goes on at its end.
    pub(super) fn after(stream_created: i64, sequence: u64, info: &Info) -> Self {
        let created = stream::created(info);
        let known = if created == stream_created {
            sequence.min(info.state.last_sequence)
        } else {
            0
        };
        Self {
            stream_created: created,
            known,
        }
    }

    /// Whether it is before a checkpoint at `sequence` of the same stream.
    pub(super) fn is_earlier(self, stream_created: i64, sequence: u64) -> bool {
        self.stream_created == stream_created && self.known < sequence
    }

    /// The first sequence to read: the last known one, once more. Where the stream was rolled
    /// back and filled again, another event may lie there now: its position tells. It is never
    /// beyond the stream's end either, where the server would wait and skip what comes.
    fn first(self) -> u64 {
        self.known.max(1)
    }
}

impl Feed {
    /// Places the durable consumer that `config` names at `start`, making it if it is not there.
    pub(super) async fn open(
        stream: &Stream,
        source: &'static str,
        projection: &str,
        config: &Config,
        start: Start,
    ) -> anyhow::Result<Self> {
        let (name, batch_max) = (&*config.consumer, config.batch_max);
        let settings = settings(source, projection, name);
        let thresholds = thresholds(config, projection);
        let consumer = place(stream, settings, &thresholds, start.first())
            .await
            .context("place the consumer")?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL_MAX)
            .max_bytes_per_batch(BYTES_MAX)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await
            .context("read the stream")?;
        Ok(Self {
            source: source.into(),
            messages,
            batch_max,
            is_drained: consumer.cached_info().num_pending == 0,
            ahead: Vec::new(),
            ahead_bytes: 0,
            chunk: BytesMut::new(),
            pending: 0,
            last: None,
            known: start.known,
            stored: None,
            batch_stored: None,
        })
    }

    /// Whether there was nothing to read when it was opened.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// When the first new event of the batch that it gave last was stored in the stream.
    pub(super) fn batch_stored(&self) -> Option<SystemTime> {
        self.batch_stored
    }

    /// Waits for the next event and gives it with all that are ready behind it, up to the bound:
    /// alone when little happens; in full batches when there is much to catch up with, because
    /// what a large store costs is its pages, and a large batch finds more of its rows on each.
    pub(super) async fn next_batch(&mut self) -> anyhow::Result<Vec<Envelope>> {
        if self.ahead.is_empty() {
            self.read().await?;
        }
        while !self.is_full() {
            // Without tokio's budget, which would call a stream that has more empty now and then.
            let ready = coop::unconstrained(self.read()).now_or_never();
            let read = match ready {
                Some(read) => read,
                None if self.is_far_behind() => {
                    match tokio::time::timeout(GATHER, self.read()).await {
                        Ok(read) => read,
                        Err(_) => break,
                    }
                }
                None => break,
            };
            if let Err(error) = read {
                // Apply what came before it; if it matters it comes again.
                tracing::debug!(source = &*self.source, %error, "reading the stream");
                break;
            }
        }
        self.ahead_bytes = 0;
        self.batch_stored = self.stored.take();
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Reads while what it gave last is applied, until the next batch is full. Nothing is lost if
    /// it is not waited for.
    pub(super) async fn read_ahead(&mut self) -> anyhow::Result<()> {
        while !self.is_full() {
            self.read().await?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.ahead.len() >= self.batch_max || self.ahead_bytes >= BYTES_MAX
    }

    /// Whether there is more to read than one batch holds.
    fn is_far_behind(&self) -> bool {
        usize::try_from(self.pending).is_ok_and(|pending| pending >= self.batch_max)
    }

    /// Reads one event.
    async fn read(&mut self) -> anyhow::Result<()> {
        let message = self.messages.next().await.context("the consumer ended")??;
        let info = message
            .info()
            .map_err(|error| anyhow!(error))
            .context("read the place of an event")?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        if self.stored.is_none() && sequence > self.known {
            self.stored = Some(info.published.into());
        }
        let headers = message.headers.as_ref();
        let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID));
        let id = id.and_then(|id| EventId::read(id.as_str(), self.last.as_ref()));
        let traceparent = headers.and_then(|headers| headers.get(TRACEPARENT));
        let traceparent = traceparent.map(|value| value.as_str().to_owned());
        if id.is_some() {
            self.last.clone_from(&id);
        }
        self.pending = pending;
        self.ahead_bytes += message.message.length;
        let subject = keep(&mut self.chunk, message.subject.as_bytes());
        let payload = keep(&mut self.chunk, &message.payload);
        self.ahead.push(Envelope {
            source: Arc::clone(&self.source),
            id,
            sequence: Some(sequence),
            traceparent,
            subject: Subject::from_utf8(subject).context("read a subject")?,
            payload,
        });
        Ok(())
    }
}

/// A copy of `bytes` in `chunk`, which many share. The client's own buffers are free again at
/// once: kept by the ten thousand, and given back on another thread, they cost a third of the
/// reading.
fn keep(chunk: &mut BytesMut, bytes: &[u8]) -> Bytes {
    if chunk.capacity() < bytes.len() {
        *chunk = BytesMut::with_capacity(CHUNK.max(bytes.len()));
    }
    chunk.extend_from_slice(bytes);
    chunk.split().freeze()
}

/// The consumer delivers all of the stream by its settings, which cannot be changed later, and
/// is then put where it is wanted: a reset takes the server about a millisecond.
async fn place(
    stream: &Stream,
    mut wanted: pull::Config,
    thresholds: &Thresholds,
    sequence: u64,
) -> anyhow::Result<PullConsumer> {
    let name = wanted.durable_name.clone().unwrap_or_default();
    let mut consumer = match stream.get_consumer(&name).await {
        Ok(consumer) if delivers_all(consumer.cached_info()) => {
            // Seldom needed, and large.
            Box::pin(label(stream, consumer.cached_info(), wanted, thresholds)).await?;
            consumer
        }
        found => {
            if found.is_ok() {
                tracing::warn!(consumer = name, "not as it should be: making it anew");
                stream.delete_consumer(&name).await?;
            }
            monitor::merge(&mut wanted.metadata, thresholds);
            stream.create_consumer(wanted).await?
        }
    };
    consumer.reset(Some(sequence)).await?;
    Ok(consumer)
}

/// Removes the durable consumer `name`, if it is there, with all requests that wait at it.
pub(super) async fn remove(stream: &Stream, name: &str) -> anyhow::Result<()> {
    match stream.delete_consumer(name).await {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error.kind()) => Ok(()),
        Err(error) => Err(error).context("remove the consumer"),
    }
}

fn is_missing(kind: &ConsumerErrorKind) -> bool {
    matches!(kind, ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// Brings what is written on a consumer to what this program writes. Its other settings stay as
/// they are, and so do thresholds of the monitoring that an operator has changed.
async fn label(
    stream: &Stream,
    info: &consumer::Info,
    wanted: pull::Config,
    thresholds: &Thresholds,
) -> anyhow::Result<()> {
    let mut config = info.config.clone();
    config.description = wanted.description;
    config.metadata.extend(wanted.metadata);
    monitor::merge(&mut config.metadata, thresholds);
    if config != info.config {
        tracing::info!(
            consumer = info.name,
            "bringing the consumer to its settings"
        );
        stream.update_consumer(config).await?;
    }
    Ok(())
}

/// What is written on the consumer of a fold beside the live one is its purpose only: that it is
/// behind is no fault.
fn thresholds(config: &Config, projection: &str) -> Thresholds {
    if config.consumer == projection {
        monitor::of_consumer()
    } else {
        Thresholds::new()
    }
}

fn settings(source: &str, projection: &str, name: &str) -> pull::Config {
    let purpose = if name == projection {
        String::new()
    } else {
        format!(", for a fold beside the live one ({name})")
    };
    pull::Config {
        durable_name: Some(name.to_owned()),
        description: Some(format!(
            "Feeds the projection {projection} with the events of {source}{purpose}"
        )),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::None,
        metadata: bus::metadata([("projection", projection), ("source", source)]),
        ..pull::Config::default()
    }
}

/// Whether a consumer, which a person may have made, hands over every event without being told
/// that it arrived. One that filters would look like a stream full of gaps.
fn delivers_all(info: &consumer::Info) -> bool {
    let config = &info.config;
    config.ack_policy == AckPolicy::None
        && config.deliver_policy == DeliverPolicy::All
        && config.filter_subject.is_empty()
        && config.filter_subjects.is_empty()
}
