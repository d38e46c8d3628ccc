//! The present and the wanted state of a stream and its consumers.

use anyhow::Context as _;
use async_nats::jetstream::consumer;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{Config, Stream};
use client::Nats;
use headwater::projection::{self, Consumer};
use headwater::stream::{self, Difference};
use serde::Serialize;

/// What was done, or would be done, with a stream or a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Same,
    Made,
    Changed,
    /// A change would be needed that JetStream cannot make.
    Refused,
}

impl Outcome {
    pub(crate) fn of(is_there: bool, differences: &[Difference]) -> Self {
        if !is_there {
            Self::Made
        } else if differences.is_empty() {
            Self::Same
        } else if differences.iter().all(|found| found.can_change) {
            Self::Changed
        } else {
            Self::Refused
        }
    }
}

/// The wanted state of a stream, with its consumers.
pub(crate) struct Wanted {
    /// The source of the stream; `None` for the bucket.
    pub(crate) source: Option<String>,
    /// The present settings; `None` if it does not exist.
    is: Option<Config>,
    config: Config,
    pub(crate) consumers: Vec<WantedConsumer>,
}

/// The wanted state of a consumer.
pub(crate) struct WantedConsumer {
    /// The present settings; `None` if it does not exist.
    is: Option<consumer::Config>,
    consumer: Consumer,
}

impl Wanted {
    pub(crate) fn name(&self) -> &str {
        &self.config.name
    }

    pub(crate) async fn of(
        nats: &Nats,
        name: &str,
        settings: impl Fn(usize) -> Config,
        replicas: Option<u8>,
    ) -> anyhow::Result<Self> {
        let is = nats.stream(name).await?;
        let is = is.map(|stream| stream.cached_info().config.clone());
        let kept = is.as_ref().map_or(1, |config| config.num_replicas);
        Ok(Self {
            source: None,
            is,
            config: settings(replicas.map_or(kept, usize::from)),
            consumers: Vec::new(),
        })
    }

    /// Adds a consumer of the stream.
    pub(crate) async fn add(&mut self, nats: &Nats, wanted: Consumer) -> anyhow::Result<()> {
        let name = &self.config.name;
        let mut is = None;
        if self.is.is_some() {
            let stream = nats.jetstream.get_stream_no_info(name).await?;
            is = match stream.consumer_info(wanted.name()).await {
                Ok(info) => Some(info.config),
                Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
                Err(error) => {
                    nats.expect_connected()?;
                    return Err(error).with_context(|| {
                        format!("look up the consumer {} of {name}", wanted.name())
                    });
                }
            };
        }
        self.consumers.push(WantedConsumer {
            is,
            consumer: wanted,
        });
        Ok(())
    }

    pub(crate) fn differences(&self) -> Vec<Difference> {
        let is = self.is.as_ref();
        is.map_or_else(Vec::new, |is| stream::differences(is, &self.config))
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::of(self.is.is_some(), &self.differences())
    }

    pub(crate) async fn carry_out(&self, nats: &Nats) -> anyhow::Result<()> {
        let name = &self.config.name;
        match (self.outcome(), &self.is) {
            (Outcome::Made, _) => {
                let made = nats.jetstream.create_stream(self.config.clone()).await;
                made.with_context(|| format!("create the stream {name}"))?;
            }
            (Outcome::Changed, Some(is)) => {
                let mut config = is.clone();
                stream::bring(&mut config, &self.config);
                let changed = nats.jetstream.update_stream(&config).await;
                changed.with_context(|| format!("change the stream {name}"))?;
            }
            _ => {}
        }
        let stream = nats.jetstream.get_stream_no_info(name).await?;
        for plan in &self.consumers {
            let done = plan.carry_out(&stream).await;
            done.with_context(|| format!("create the consumer {} of {name}", plan.name()))?;
        }
        Ok(())
    }
}

impl WantedConsumer {
    pub(crate) fn name(&self) -> &str {
        self.consumer.name()
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::of(self.is.is_some(), &self.differences())
    }

    pub(crate) fn differences(&self) -> Vec<Difference> {
        let Some(is) = &self.is else {
            return Vec::new();
        };
        let harm =
            projection::harm(is).map(|harm| (harm, "a new one, which hands over all events"));
        let is_labelled = self.consumer.labelled(is).is_none();
        let label = (!is_labelled).then_some(("out of date", "as this version writes them"));
        let found = [("settings", harm), ("description and metadata", label)];
        let found = found.into_iter().filter_map(|(setting, found)| {
            let (is, wanted) = found?;
            Some(Difference {
                setting: setting.to_owned(),
                is: is.to_owned(),
                wanted: wanted.to_owned(),
                can_change: true,
            })
        });
        found.collect()
    }

    /// A consumer with a harmful setting is created again; its projection sets its position.
    async fn carry_out(&self, stream: &Stream<()>) -> anyhow::Result<()> {
        let is = self.is.as_ref();
        let name = self.consumer.name();
        if is.is_some_and(|is| projection::harm(is).is_some()) {
            stream.delete_consumer(name).await?;
        } else if let Some(is) = is {
            if let Some(config) = self.consumer.labelled(is) {
                stream.update_consumer(config).await?;
            }
            return Ok(());
        }
        stream.create_consumer(self.consumer.settings()).await?;
        Ok(())
    }
}
