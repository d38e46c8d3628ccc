//! The durable consumers of a projection: their settings, and placing one where reading starts.
//!
//! A consumer holds no state of value: it delivers its whole stream, needs no acknowledgements, and
//! is reset to the checkpoint whenever reading starts. So the reader can create it or, if services
//! may not create consumers, the operator (`headwater provision`).

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{
    self, AckPolicy, DeliverPolicy, PriorityPolicy, PullConsumer, ReplayPolicy, pull,
};
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use tokio::time::Instant;

use crate::bus::{self, Bus};
pub use crate::control::rebuild::RebuildPurpose;
use crate::error::Error;
use crate::monitor;
use crate::monitor::Thresholds;
use crate::pull::EXPIRES;
use crate::window::Link;

/// The shortest acceptable expiry of a consumer's requests: a reader would have to renew shorter
/// requests all the time.
const EXPIRES_MIN: Duration = Duration::from_secs(1);

/// How long to wait for requests of an earlier reader to end: they expire by then.
const TAKE_OVER_WITHIN: Duration = EXPIRES.saturating_add(Duration::from_secs(1));

/// The pause before each check of these requests, and the timeout of a check.
const LOOK_PAUSE: Duration = Duration::from_millis(25);
const LOOK_WITHIN: Duration = Duration::from_millis(500);

/// A consumer without a leader never answers. After these times, it is asked a second and a third
/// time; the third attempt has the usual timeout of a request.
const ASK_AGAIN_AFTER: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// A durable consumer as a projection needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    projection: String,
    source: String,
    name: String,
}

impl Consumer {
    /// The consumer `name` of `projection` on the stream of `source`.
    pub fn new(projection: &str, source: &str, name: &str) -> Self {
        Self {
            projection: projection.to_owned(),
            source: source.to_owned(),
            name: name.to_owned(),
        }
    }

    /// All consumers of `projection` on the stream of `source`: the one that feeds it, and those
    /// for rebuild and verify.
    pub fn all(projection: &str, source: &str) -> [Self; 3] {
        [
            projection.to_owned(),
            beside(projection, RebuildPurpose::Rebuild),
            beside(projection, RebuildPurpose::Verify),
        ]
        .map(|name| Self::new(projection, source, &name))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings with which it is created.
    pub fn settings(&self) -> pull::Config {
        let (projection, source) = (&*self.projection, &*self.source);
        let purpose = if self.is_live() {
            String::new()
        } else {
            format!(", for a rebuild next to the live one ({})", self.name)
        };
        let mut metadata = bus::metadata([("projection", projection), ("source", source)]);
        monitor::merge(&mut metadata, &self.thresholds());
        pull::Config {
            durable_name: Some(self.name.clone()),
            description: Some(format!(
                "Feeds the projection {projection} with the events of {source}{purpose}"
            )),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::None,
            metadata,
            ..pull::Config::default()
        }
    }

    /// `found` with this program's description and metadata; `None` if it already has them. Other
    /// settings stay, and so do monitoring thresholds that an operator has changed.
    pub fn labelled(&self, found: &consumer::Config) -> Option<consumer::Config> {
        let wanted = self.settings();
        let mut config = found.clone();
        config.description = wanted.description;
        let labels = wanted.metadata.into_iter();
        config
            .metadata
            .extend(labels.filter(|(key, _)| !monitor::writes(key)));
        monitor::merge(&mut config.metadata, &self.thresholds());
        (config != *found).then_some(config)
    }

    fn is_live(&self) -> bool {
        self.name == self.projection
    }

    /// The monitoring thresholds. The consumer of a rebuild has none: it is expected to be behind.
    fn thresholds(&self) -> Thresholds {
        if self.is_live() {
            monitor::of_consumer()
        } else {
            Thresholds::new()
        }
    }
}

/// The name of the consumers that rebuild or verify `projection`.
pub fn beside(projection: &str, then: RebuildPurpose) -> String {
    format!("{projection}-{}", then.word())
}

/// Places the consumer `wanted` so that it starts at `sequence`. Creates it if it is missing, and
/// recreates it if its settings are unusable. By its settings, which cannot be changed later, it
/// delivers the whole stream; then it is reset, which takes the server about a millisecond.
///
/// # Errors
/// [`Error::Paused`]; [`Error::NotProvisioned`] if it cannot be created; those of requests to the
/// broker.
pub async fn place(
    bus: &Bus,
    stream: &Stream,
    link: &Link,
    wanted: &Consumer,
    sequence: u64,
) -> Result<PullConsumer, Error> {
    let placed = try_place(bus, stream, link, wanted, sequence).await;
    placed.map_err(Error::of)
}

async fn try_place(
    bus: &Bus,
    stream: &Stream,
    link: &Link,
    wanted: &Consumer,
    sequence: u64,
) -> anyhow::Result<PullConsumer> {
    let name = wanted.name();
    let asked = Instant::now();
    let found = answered(|| stream.get_consumer::<pull::Config>(name)).await;
    link.note_round_trip(asked.elapsed());
    let (found, harm) = match found {
        Ok(consumer) => {
            let harm = harm(&consumer.cached_info().config);
            (Some(consumer), harm)
        }
        Err(error) => match error.downcast::<ConsumerInfoError>() {
            Ok(error) if error.kind() == ConsumerInfoErrorKind::NotFound => (None, None),
            Ok(error) => {
                return Err(*error).with_context(|| format!("inspect the consumer {name}"));
            }
            Err(_) => (None, Some("it pushes events")),
        },
    };
    if let Some(harm) = harm {
        tracing::warn!(
            consumer = name,
            harm,
            "recreating the consumer: its settings would withhold or delay events"
        );
        let deleted = remove(stream, name).await;
        deleted.map_err(|error| to_be_provisioned(error, stream, name, harm))?;
    } else if let Some(consumer) = found {
        refuse_pause(stream, consumer.cached_info())?;
        // Boxed because it is large and seldom needed.
        Box::pin(label(stream, consumer.cached_info(), wanted)).await;
        let is_free = consumer.cached_info().num_waiting == 0 || is_free(stream, name).await;
        // Deleting the consumer, if the service may, also ends the pending requests.
        if is_free || remove(stream, name).await.is_err() {
            if !is_free {
                take_over(bus, stream, consumer.cached_info()).await;
            }
            return reset(&consumer, sequence).await;
        }
    }
    let made = stream.create_consumer(wanted.settings()).await;
    let consumer =
        made.map_err(|error| to_be_provisioned(error.into(), stream, name, "it is missing"))?;
    if sequence > 1 {
        return reset(&consumer, sequence).await;
    }
    Ok(consumer)
}

/// Resets the consumer to `sequence`; returns it with the state that the server then reports.
async fn reset(consumer: &PullConsumer, sequence: u64) -> anyhow::Result<PullConsumer> {
    let ask = || {
        let mut consumer = consumer.clone();
        async move { consumer.reset(Some(sequence)).await.map(|_| consumer) }
    };
    Ok(answered(ask).await?)
}

/// The answer of a consumer, which may take several attempts.
async fn answered<F: Future>(ask: impl Fn() -> F) -> F::Output {
    for within in ASK_AGAIN_AFTER {
        if let Ok(answer) = tokio::time::timeout(within, ask()).await {
            return answer;
        }
    }
    ask().await
}

/// The error if a service cannot create or delete the consumer, with what to do.
fn to_be_provisioned(error: anyhow::Error, stream: &Stream, name: &str, why: &str) -> Error {
    let stream = &stream.cached_info().config.name;
    let what = format!(
        "create the consumer {name} of {stream} ({why}); if services may not, run \
         `headwater provision`"
    );
    Error::NotProvisioned(error.context(what).into())
}

/// Waits until the server delivers no more events to requests of an earlier reader, for example one
/// whose connection broke: this reader would miss those events.
///
/// The server notices that a reader is gone, unless the reader is connected to another server of
/// the cluster through another account. Then another server must take over the consumer. If none
/// can, the requests expire.
async fn take_over(bus: &Bus, stream: &Stream, info: &consumer::Info) {
    let end = Instant::now() + TAKE_OVER_WITHIN;
    if info.cluster.is_some() {
        hand_over(bus, stream, &info.name).await;
    }
    while !is_free(stream, &info.name).await && Instant::now() < end {}
}

/// Whether no requests are pending after a short pause: by then, this reader's own earlier requests
/// have ended.
async fn is_free(stream: &Stream, name: &str) -> bool {
    tokio::time::sleep(LOOK_PAUSE).await;
    let looked = tokio::time::timeout(LOOK_WITHIN, stream.consumer_info(name)).await;
    matches!(looked, Ok(Ok(now)) if now.num_waiting == 0)
}

/// Makes another server of the cluster take over the consumer.
async fn hand_over(bus: &Bus, stream: &Stream, name: &str) {
    let stream = &stream.cached_info().config.name;
    let subject = format!("CONSUMER.LEADER.STEPDOWN.{stream}.{name}");
    let ask = || bus.jetstream.request(subject.clone(), &());
    let answer: Result<serde_json::Value, _> = answered(ask).await;
    tracing::debug!(
        consumer = name,
        ?answer,
        "asked another server to take over the consumer"
    );
}

/// Returns an error if an operator has paused the consumer at the broker. Such a pause ends at its
/// deadline or when the operator resumes the consumer.
///
/// # Errors
/// [`Error::Paused`].
pub fn refuse_pause(stream: &Stream, info: &consumer::Info) -> Result<(), Error> {
    if !info.paused {
        return Ok(());
    }
    let (stream, name) = (&stream.cached_info().config.name, &info.name);
    let what = format!(
        "the consumer {name} of {stream} is paused for another {:?}; to resume it: \
         `nats consumer resume {stream} {name}`",
        info.pause_remaining.unwrap_or_default()
    );
    Err(Error::Paused(what.into()))
}

async fn remove(stream: &Stream, name: &str) -> anyhow::Result<()> {
    match stream.delete_consumer(name).await {
        Ok(_) => Ok(()),
        Err(error) if is_missing(&error.kind()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_missing(kind: &ConsumerErrorKind) -> bool {
    matches!(kind, ConsumerErrorKind::JetStream(error) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
}

/// Updates the description and metadata of a consumer. If the service may not, that is left to
/// `headwater provision`: outdated ones do no harm.
async fn label(stream: &Stream, info: &consumer::Info, wanted: &Consumer) {
    let Some(config) = wanted.labelled(&info.config) else {
        return;
    };
    match stream.update_consumer(config).await {
        Ok(_) => tracing::info!(consumer = info.name, "updated the consumer's metadata"),
        Err(error) => tracing::warn!(
            consumer = info.name,
            %error,
            "cannot update the consumer's metadata, which is out of date: run `headwater provision`"
        ),
    }
}

/// What prevents a consumer from delivering every event unchanged, at once, and without
/// acknowledgements. An operator may have created or edited it. With a filter, the stream would
/// seem full of gaps; without payloads, full of invalid events. Settings that are not listed do no
/// harm: readers respect limits on requests.
pub fn harm(config: &consumer::Config) -> Option<&'static str> {
    let harms = [
        (config.deliver_subject.is_some(), "it pushes events"),
        (
            config.ack_policy != AckPolicy::None,
            "it waits for acknowledgements",
        ),
        (
            config.deliver_policy != DeliverPolicy::All,
            "it does not begin with the first event",
        ),
        (
            !config.filter_subject.is_empty() || !config.filter_subjects.is_empty(),
            "it filters",
        ),
        (config.headers_only, "it delivers headers only"),
        (
            config.replay_policy != ReplayPolicy::Instant,
            "it replays at the original speed",
        ),
        (config.rate_limit > 0, "its rate is limited"),
        (
            config.priority_policy != PriorityPolicy::None,
            "it serves priority groups",
        ),
        (
            !config.max_expires.is_zero() && config.max_expires < EXPIRES_MIN,
            "its requests expire too soon",
        ),
    ];
    harms
        .into_iter()
        .find_map(|(applies, harm)| applies.then_some(harm))
}
