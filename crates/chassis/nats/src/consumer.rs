//! The durable consumers of a projection: their settings, and placing one where reading starts.
//!
//! A consumer remembers nothing of value: it delivers all of its stream, acknowledges nothing, and
//! is reset to the checkpoint whenever reading starts. So whoever may make consumers can make it:
//! the reader itself, or, where services may not, the operator (`headwater provision`).

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{
    self, AckPolicy, DeliverPolicy, PriorityPolicy, PullConsumer, ReplayPolicy, pull,
};
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};
use async_nats::jetstream::stream::{ConsumerErrorKind, Stream};
use tokio::time::Instant;

use crate::bus::{self, Bus};
pub use crate::control::rebuild::RebuildPurpose;
use crate::monitor;
use crate::monitor::Thresholds;
use crate::pull::EXPIRES;
use crate::window::Link;

/// The shortest time that a consumer's requests have to stay open: one that lets them expire
/// sooner would be asked all the time.
const EXPIRES_MIN: Duration = Duration::from_secs(1);

/// How long requests of an earlier reader are waited for: they expire by then.
const TAKE_OVER_WITHIN: Duration = EXPIRES.saturating_add(Duration::from_secs(1));

/// The pause between two looks at them, and how long one may take.
const LOOK_PAUSE: Duration = Duration::from_millis(25);
const LOOK_WITHIN: Duration = Duration::from_millis(500);

/// A consumer that has no leader at the moment never answers: when it is asked again, and once
/// more. The last time it has as long as any request.
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

    /// All that `projection` has at the stream of `source`: the one that feeds it, and those of the
    /// folds beside it that rebuild and verify it.
    pub fn all(projection: &str, source: &str) -> [Self; 3] {
        let beside = |then| beside(projection, then);
        [
            projection.to_owned(),
            beside(RebuildPurpose::Rebuild),
            beside(RebuildPurpose::Verify),
        ]
        .map(|name| Self::new(projection, source, &name))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The settings that it is made with.
    pub fn settings(&self) -> pull::Config {
        let (projection, source) = (&*self.projection, &*self.source);
        let purpose = if self.is_live() {
            String::new()
        } else {
            format!(", for a fold beside the live one ({})", self.name)
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

    /// `found` with what this program writes on its consumer; none where it stands there. Other
    /// settings stay as they are, and so do thresholds of the monitoring that an operator has
    /// changed.
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

    /// What is written on the consumer of a fold beside the live one is its purpose only: that it
    /// is behind is no fault.
    fn thresholds(&self) -> Thresholds {
        if self.is_live() {
            monitor::of_consumer()
        } else {
            Thresholds::new()
        }
    }
}

/// The name of the consumers of a fold beside the live one of `projection`.
pub fn beside(projection: &str, then: RebuildPurpose) -> String {
    format!("{projection}-{}", then.word())
}

/// Places the consumer `wanted` before `sequence`, and makes it if it is not there, or not as it
/// has to be. It delivers all of the stream by its settings, which cannot be changed later, and is
/// then reset: that takes the server about a millisecond.
pub async fn place(
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
    let harm = match &found {
        Ok(consumer) => harm(&consumer.cached_info().config),
        Err(error) if is_not_found(error) => None,
        Err(error) if error.is::<ConsumerInfoError>() => {
            bail!("look at the consumer {name}: {error}")
        }
        Err(_) => Some("it pushes events"),
    };
    if let Some(harm) = harm {
        tracing::warn!(
            consumer = name,
            harm,
            "the consumer is recreated: it would keep events back"
        );
        let deleted = remove(stream, name).await;
        deleted.with_context(|| to_be_provisioned(stream, name, harm))?;
    } else if let Ok(consumer) = found {
        refuse_pause(stream, consumer.cached_info())?;
        // Seldom needed, and large.
        Box::pin(label(stream, consumer.cached_info(), wanted)).await;
        let is_free = consumer.cached_info().num_waiting == 0 || is_free(stream, name).await;
        // What was asked for goes with the consumer, where the service may delete it.
        if is_free || remove(stream, name).await.is_err() {
            if !is_free {
                take_over(bus, stream, consumer.cached_info()).await;
            }
            return reset(&consumer, sequence).await;
        }
    }
    let made = stream.create_consumer(wanted.settings()).await;
    let consumer = made.with_context(|| to_be_provisioned(stream, name, "it is not there"))?;
    if sequence > 1 {
        return reset(&consumer, sequence).await;
    }
    Ok(consumer)
}

/// Resets the consumer to `sequence`; gives it with what the server says of it then.
async fn reset(consumer: &PullConsumer, sequence: u64) -> anyhow::Result<PullConsumer> {
    let ask = || {
        let mut consumer = consumer.clone();
        async move { consumer.reset(Some(sequence)).await.map(|_| consumer) }
    };
    Ok(answered(ask).await?)
}

/// The answer of a consumer, which may be asked more than once.
async fn answered<F: Future>(ask: impl Fn() -> F) -> F::Output {
    for within in ASK_AGAIN_AFTER {
        if let Ok(answer) = tokio::time::timeout(within, ask()).await {
            return answer;
        }
    }
    ask().await
}

/// What to do where a service may neither make nor delete consumers.
fn to_be_provisioned(stream: &Stream, name: &str, why: &str) -> String {
    let stream = &stream.cached_info().config.name;
    format!(
        "make the consumer {name} of {stream} ({why}); where services may not, the operator does: \
         `headwater provision`"
    )
}

/// Waits until nothing is handed out any more that an earlier reader, perhaps of a connection that
/// broke, has asked for: the events would be missing here.
///
/// The server sees by itself that a reader is gone, except where it is connected to another server
/// of a cluster, by way of another account: there another server has to take the consumer over.
/// Where none can, what was asked for expires.
async fn take_over(bus: &Bus, stream: &Stream, info: &consumer::Info) {
    let end = Instant::now() + TAKE_OVER_WITHIN;
    if info.cluster.is_some() {
        hand_over(bus, stream, &info.name).await;
    }
    while !is_free(stream, &info.name).await && Instant::now() < end {}
}

/// Whether nothing is asked for, in a moment: what this reader itself asked for before is given up
/// by then.
async fn is_free(stream: &Stream, name: &str) -> bool {
    tokio::time::sleep(LOOK_PAUSE).await;
    let looked = tokio::time::timeout(LOOK_WITHIN, stream.consumer_info(name)).await;
    matches!(looked, Ok(Ok(now)) if now.num_waiting == 0)
}

/// Has another server of the cluster take the consumer over.
async fn hand_over(bus: &Bus, stream: &Stream, name: &str) {
    let stream = &stream.cached_info().config.name;
    let subject = format!("CONSUMER.LEADER.STEPDOWN.{stream}.{name}");
    let ask = || bus.jetstream.request(subject.clone(), &());
    let answer: Result<serde_json::Value, _> = answered(ask).await;
    tracing::debug!(
        consumer = name,
        ?answer,
        "another server takes the consumer over"
    );
}

/// A person has paused the consumer at the broker: that ends by itself, or as the person wants.
pub fn refuse_pause(stream: &Stream, info: &consumer::Info) -> anyhow::Result<()> {
    let (stream, name) = (&stream.cached_info().config.name, &info.name);
    ensure!(
        !info.paused,
        "the consumer {name} of {stream} is paused for {:?} more: `nats consumer resume {stream} \
         {name}` lets it go on",
        info.pause_remaining.unwrap_or_default()
    );
    Ok(())
}

fn is_not_found(error: &async_nats::Error) -> bool {
    let error = error.downcast_ref::<ConsumerInfoError>();
    error.is_some_and(|error| matches!(error.kind(), ConsumerInfoErrorKind::NotFound))
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

/// Brings what is written on a consumer to what this program writes. Where it may not, that stays
/// for `headwater provision`: it does no harm.
async fn label(stream: &Stream, info: &consumer::Info, wanted: &Consumer) {
    let Some(config) = wanted.labelled(&info.config) else {
        return;
    };
    match stream.update_consumer(config).await {
        Ok(_) => tracing::info!(consumer = info.name, "brought the consumer to its settings"),
        Err(error) => tracing::warn!(
            consumer = info.name,
            %error,
            "what is written on the consumer is out of date: `headwater provision`"
        ),
    }
}

/// What keeps a consumer, which a person may have made or edited, from handing over every event
/// as it is and at once, without being told that it arrived. One that filters would look like a
/// stream full of gaps, one without payloads like a stream full of broken events. What is not
/// listed does no harm: limits of a request are kept to.
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
        (config.headers_only, "it hands over headers only"),
        (
            config.replay_policy != ReplayPolicy::Instant,
            "it replays at the original speed",
        ),
        (config.rate_limit > 0, "its rate is limited"),
        (
            config.priority_policy != PriorityPolicy::None,
            "it serves groups",
        ),
        (
            !config.max_expires.is_zero() && config.max_expires < EXPIRES_MIN,
            "its requests expire at once",
        ),
    ];
    harms
        .into_iter()
        .find_map(|(is_so, harm)| is_so.then_some(harm))
}
