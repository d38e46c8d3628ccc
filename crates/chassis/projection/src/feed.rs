//! Reads a source's stream with the durable consumer, placed at the checkpoint.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, anyhow};
use async_nats::header::{HeaderName, NATS_MESSAGE_ID};
use async_nats::jetstream::stream::Stream;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use headwater_event::{Envelope, EventId};
use headwater_nats::bus::Bus;
use headwater_nats::consumer::{self, Consumer};
use headwater_nats::pull::Pull;
use headwater_nats::window::{Link, Window};
use headwater_telemetry::trace;
use tokio::task::coop;

use crate::config::Config;
use headwater_nats::start::Start;

/// The most bytes read ahead of applying. Bounds a reader's memory if events are large.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long a batch should take to apply. Its effects are not visible before, and a stop waits for
/// it.
const APPLYING: Duration = Duration::from_millis(250);

/// The batch size before a batch has been applied.
const BATCH_FIRST: usize = 1_000;

/// The header of an event whose payload the consumer's settings removed.
const PAYLOAD_SIZE: HeaderName = HeaderName::from_static("Nats-Msg-Size");

/// The most subjects kept for sharing.
const SUBJECTS_MAX: usize = 4_096;

/// The size of the chunks that events are copied to, in bytes.
const CHUNK: usize = 64 * 1024;

/// The trace header, in the client's type.
const TRACEPARENT: HeaderName = HeaderName::from_static(trace::TRACEPARENT);

/// How long a reader that is far behind waits to fill a batch, after its first event.
const GATHER: Duration = Duration::from_millis(100);

/// Events of a source, from one point of its stream on.
pub(super) struct Feed {
    source: Arc<str>,
    stream: Stream,
    consumer: String,
    pull: Pull,
    /// The most events in one batch, and how many are applied in about [`APPLYING`].
    batch_max: usize,
    batch: usize,
    is_at_end: bool,
    /// What was read and not yet taken, and its bytes.
    ahead: Vec<Envelope>,
    ahead_bytes: usize,
    /// Where event payloads are copied to.
    chunk: BytesMut,
    /// Recent subjects, each once.
    subjects: HashSet<Arc<str>>,
    /// How many events the server has after the last one read.
    pending: u64,
    /// The id of the last event read that had one.
    last: Option<EventId>,
    /// The last known sequence when the feed was opened.
    known: u64,
    /// The sequence of the last event read.
    sequence: Option<u64>,
    /// Whether the events look as if the consumer held something back.
    is_suspect: bool,
    /// Where to begin again. An account that reads the stream through an import gets nothing after
    /// an event with neither headers nor payload, because the server takes that event for the end
    /// of an answer.
    cut: Option<u64>,
    /// When the first new event of `ahead` was stored in the stream.
    stored: Option<SystemTime>,
    /// The same for the batch taken last.
    batch_stored: Option<SystemTime>,
}

impl Feed {
    /// Places the durable consumer that `config` names at `start`; creates it if missing.
    pub(super) async fn open(
        bus: &Bus,
        link: &Link,
        stream: Stream,
        source: &'static str,
        projection: &str,
        config: &Config,
        start: Start,
    ) -> anyhow::Result<Self> {
        let wanted = Consumer::new(projection, source, &config.consumer);
        let consumer = consumer::place(bus, &stream, link, &wanted, start.first())
            .await
            .context("place the consumer")?;
        let is_at_end = consumer.cached_info().num_pending == 0;
        let window = Window::new(link, Instant::now());
        Ok(Self {
            source: source.into(),
            stream,
            consumer: config.consumer.clone(),
            pull: Pull::open(bus, consumer, window).await?,
            batch_max: config.batch_max,
            batch: BATCH_FIRST.min(config.batch_max),
            is_at_end,
            ahead: Vec::new(),
            ahead_bytes: 0,
            chunk: BytesMut::new(),
            subjects: HashSet::new(),
            pending: 0,
            last: None,
            known: start.known,
            sequence: None,
            is_suspect: false,
            cut: None,
            stored: None,
            batch_stored: None,
        })
    }

    /// The stream being read.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether there was nothing to read when the feed was opened.
    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    /// When the first new event of the last batch was stored in the stream.
    pub(super) fn batch_stored(&self) -> Option<SystemTime> {
        self.batch_stored
    }

    /// The time since the server's last message, heartbeats included.
    pub(super) fn silent_for(&self) -> Duration {
        self.pull.silent_for()
    }

    /// The bytes that the link carries in about a quarter of a second.
    pub(super) fn window_bytes(&self) -> usize {
        self.pull.window_bytes()
    }

    /// Adapts the batch size to how long the last batch took; at most doubles it.
    pub(super) fn note_applied(&mut self, events: usize, took: Duration) {
        let fitting = events as u128 * APPLYING.as_micros() / took.as_micros().max(1);
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        if took > APPLYING || events >= self.batch {
            let fitting = fitting.clamp(1, self.batch.saturating_mul(2));
            self.batch = fitting.min(self.batch_max);
        }
    }

    /// Checks the consumer if the last events looked suspect: an operator may have changed it.
    /// Placing it again repairs harmful settings.
    pub(super) async fn is_as_needed(&mut self) -> anyhow::Result<bool> {
        if !std::mem::take(&mut self.is_suspect) {
            return Ok(true);
        }
        self.check().await
    }

    /// Whether the consumer's settings are as needed.
    pub(super) async fn check(&self) -> anyhow::Result<bool> {
        let info = self.stream.consumer_info(&self.consumer).await;
        let info = info.context("read the consumer's settings")?;
        consumer::refuse_pause(&self.stream, &info)?;
        Ok(consumer::harm(&info.config).is_none())
    }

    /// All events that came and were not taken, so that they need not come again. Requests nothing
    /// more.
    pub(super) fn into_rest(mut self) -> Vec<Envelope> {
        self.pull.end();
        while let Some(Ok(())) = coop::unconstrained(self.read()).now_or_never() {}
        self.ahead
    }

    /// Waits for the next event and returns it with all that are ready after it, up to the bound.
    /// Under little load an event comes alone. With much to catch up, batches are full, because a
    /// large batch changes more rows per page of a large store.
    pub(super) async fn next_batch(&mut self) -> anyhow::Result<Vec<Envelope>> {
        if self.ahead.is_empty() {
            self.read().await?;
        }
        let gathered = tokio::time::Instant::now() + GATHER;
        while !self.is_full() {
            // Without tokio's budget, which would now and then make a stream look empty.
            let ready = coop::unconstrained(self.read()).now_or_never();
            let read = match ready {
                Some(read) => read,
                None if self.is_far_behind() => {
                    match tokio::time::timeout_at(gathered, self.read()).await {
                        Ok(read) => read,
                        Err(_) => break,
                    }
                }
                None => break,
            };
            if let Err(error) = read {
                // Apply what came before the error; if it matters, it comes again.
                tracing::debug!(source = &*self.source, %error, "could not read the stream");
                break;
            }
        }
        // The batch size may have shrunk since these were read.
        let later = self.ahead.split_off(self.batch.min(self.ahead.len()));
        self.ahead_bytes = later.iter().map(|event| event.payload.len()).sum();
        self.batch_stored = self.stored;
        self.stored = self.stored.filter(|_| !later.is_empty());
        Ok(std::mem::replace(&mut self.ahead, later))
    }

    /// Reads until the next batch is full, while the last batch is being applied. Cancelling it
    /// loses nothing.
    pub(super) async fn read_ahead(&mut self) -> anyhow::Result<()> {
        while !self.is_full() {
            self.read().await?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.ahead.len() >= self.batch || self.ahead_bytes >= BYTES_MAX
    }

    /// Whether there is more to read than one batch holds.
    fn is_far_behind(&self) -> bool {
        usize::try_from(self.pending).is_ok_and(|pending| pending >= self.batch)
    }

    /// Reads one event.
    async fn read(&mut self) -> anyhow::Result<()> {
        if let Some(sequence) = self.cut {
            self.pull.begin_again(sequence).await?;
            self.cut = None;
        }
        let message = self.pull.next().await?;
        let info = message
            .info()
            .map_err(|error| anyhow!(error))
            .context("read an event's sequence")?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        if self.stored.is_none() && sequence > self.known {
            self.stored = Some(info.published.into());
        }
        if pending == 0 {
            self.pull.note_end();
        }
        let headers = message.headers.as_ref();
        let has_size = headers.is_some_and(|headers| headers.get(PAYLOAD_SIZE).is_some());
        let is_next = self.sequence.is_none_or(|last| sequence == last + 1);
        self.sequence = Some(sequence);
        self.is_suspect |= !is_next || has_size && message.payload.is_empty();
        let is_empty = headers.is_none() && message.payload.is_empty();
        self.cut = is_empty.then_some(sequence + 1);
        let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID));
        let id = id.and_then(|id| EventId::read(id.as_str(), self.last.as_ref()));
        let traceparent = headers.and_then(|headers| headers.get(TRACEPARENT));
        let traceparent = traceparent.map(|value| value.as_str().to_owned());
        if id.is_some() {
            self.last.clone_from(&id);
        }
        self.pending = pending;
        self.ahead_bytes += message.message.length;
        let subject = shared(&mut self.subjects, &message.subject);
        let payload = keep(&mut self.chunk, &message.payload);
        self.ahead.push(Envelope {
            source: Arc::clone(&self.source),
            id,
            sequence: Some(sequence),
            traceparent,
            subject,
            payload,
        });
        Ok(())
    }
}

/// `subject`, shared with earlier events: a source has some hundreds of subjects.
fn shared(known: &mut HashSet<Arc<str>>, subject: &str) -> Arc<str> {
    if let Some(known) = known.get(subject) {
        return Arc::clone(known);
    }
    if known.len() >= SUBJECTS_MAX {
        known.clear();
    }
    let subject: Arc<str> = subject.into();
    known.insert(Arc::clone(&subject));
    subject
}

/// Copies `bytes` into `chunk`, which many events share. This frees the client's buffers at once:
/// kept by the ten thousand and freed on another thread, they cost a third of the reading.
fn keep(chunk: &mut BytesMut, bytes: &[u8]) -> Bytes {
    if chunk.capacity() < bytes.len() {
        *chunk = BytesMut::with_capacity(CHUNK.max(bytes.len()));
    }
    chunk.extend_from_slice(bytes);
    chunk.split().freeze()
}
