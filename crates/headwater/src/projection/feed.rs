//! Reading a source's stream: the durable consumer, placed at the checkpoint.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Info, Stream};
use futures_util::{FutureExt as _, StreamExt as _};

use super::runner::Config;
use crate::bus;
use crate::envelope::Envelope;
use crate::stream;

/// A silent consumer is noticed after two of these.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How long one pull request stays open at the server.
const EXPIRES: Duration = Duration::from_secs(30);

/// What one pull may bring, in bytes: bounds the memory of a reader whose events are large.
const PULL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Events of a source, from a place in its stream on.
pub(super) struct Feed {
    source: &'static str,
    messages: pull::Stream,
    batch_max: usize,
    is_drained: bool,
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
        let consumer = place(stream, settings(source, projection, name), start.first())
            .await
            .context("place the consumer")?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(batch_max)
            .max_bytes_per_batch(PULL_BYTES_MAX)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await
            .context("read the stream")?;
        Ok(Self {
            source,
            messages,
            batch_max,
            is_drained: consumer.cached_info().num_pending == 0,
        })
    }

    /// Whether there was nothing to read when it was opened.
    pub(super) fn is_drained(&self) -> bool {
        self.is_drained
    }

    /// Waits for the next event and gives it with all that are ready behind it, up to the bound:
    /// alone when little happens, in large batches when there is much to catch up with.
    pub(super) async fn next_batch(&mut self) -> anyhow::Result<Vec<Envelope>> {
        let first = self.messages.next().await.context("the consumer ended")??;
        let mut events = vec![envelope(self.source, first)?];
        while events.len() < self.batch_max
            && let Some(Some(next)) = self.messages.next().now_or_never()
        {
            match next {
                Ok(message) => events.push(envelope(self.source, message)?),
                // Apply what came before it; if it matters it comes again.
                Err(error) => {
                    tracing::debug!(source = self.source, %error, "reading the stream");
                    break;
                }
            }
        }
        Ok(events)
    }
}

/// The consumer delivers all of the stream by its settings, which cannot be changed later, and
/// is then put where it is wanted: a reset takes the server about a millisecond.
async fn place(
    stream: &Stream,
    settings: pull::Config,
    sequence: u64,
) -> anyhow::Result<PullConsumer> {
    let name = settings.durable_name.clone().unwrap_or_default();
    let mut consumer = match stream.get_consumer(&name).await {
        Ok(consumer) if delivers_all(consumer.cached_info()) => consumer,
        found => {
            if found.is_ok() {
                tracing::warn!(consumer = name, "not as it should be: making it anew");
                stream.delete_consumer(&name).await?;
            }
            stream.create_consumer(settings).await?
        }
    };
    consumer.reset(Some(sequence)).await?;
    Ok(consumer)
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

fn envelope(source: &'static str, message: jetstream::Message) -> anyhow::Result<Envelope> {
    let sequence = message
        .info()
        .map_err(|error| anyhow::anyhow!(error))
        .context("read the place of an event")?
        .stream_sequence;
    let headers = message.headers.as_ref();
    let id = headers.and_then(|headers| headers.get(NATS_MESSAGE_ID));
    let traceparent = headers.and_then(|headers| headers.get("traceparent"));
    Ok(Envelope {
        source: source.to_owned(),
        subject: message.subject.to_string(),
        id: id.and_then(|id| id.as_str().parse().ok()),
        sequence: Some(sequence),
        traceparent: traceparent.map(|value| value.as_str().to_owned()),
        payload: message.message.payload,
    })
}
