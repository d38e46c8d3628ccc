//! Who is there: sources with their streams, services, projections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use headwater::operator::StatusAnswer;
use tokio::time::Instant;

use crate::nats::{Nats, Unreachable};

/// What was found, and who should be there and is not.
pub(super) struct Shop {
    /// What each service says of itself.
    pub(super) services: BTreeMap<String, StatusAnswer>,
    /// Those whose events are to be compared.
    pub(super) sources: BTreeSet<String>,
    pub(super) unreachable: Vec<Unreachable>,
    /// Who answers otherwise than expected, as sentences.
    pub(super) failed: Vec<String>,
}

/// What the streams say: each tells its source, and its readers their projection.
#[derive(Default)]
struct Streams {
    sources: BTreeSet<String>,
    /// The stream that each projection reads, itself or a fold beside it; one of them, if it is
    /// several.
    projections: BTreeMap<String, String>,
}

/// Looks around, and waits for up to `wait` for those who should be there. `only`: these sources,
/// or all if there are none.
pub(super) async fn look(
    nats: &Nats,
    only: &BTreeSet<String>,
    wait: Duration,
) -> anyhow::Result<Shop> {
    let streams = streams(nats, only).await?;
    let deadline = Instant::now() + wait;
    loop {
        let shop = Shop::ask(nats, only, &streams).await?;
        if shop.unreachable.is_empty() || Instant::now() >= deadline {
            return Ok(shop);
        }
    }
}

impl Shop {
    async fn ask(nats: &Nats, only: &BTreeSet<String>, streams: &Streams) -> anyhow::Result<Self> {
        let mut names = nats.services().await?;
        names.extend(streams.sources.iter().chain(only).cloned());
        let mut shop = Self {
            services: BTreeMap::new(),
            sources: BTreeSet::new(),
            unreachable: Vec::new(),
            failed: Vec::new(),
        };
        for name in names {
            shop.ask_one(nats, name).await?;
        }
        shop.sources = shop.sources_of(streams);
        if !only.is_empty() {
            shop.sources.retain(|source| only.contains(source));
        }
        shop.expect(streams);
        Ok(shop)
    }

    async fn ask_one(&mut self, nats: &Nats, name: String) -> anyhow::Result<()> {
        match nats.ask::<StatusAnswer>(&name, "status", &()).await {
            Ok(status) => {
                self.services.insert(name, status);
            }
            Err(error) => match error.downcast::<Unreachable>() {
                Ok(lost @ Unreachable::Broker { .. }) => return Err(lost.into()),
                Ok(away) => self.unreachable.push(away),
                Err(error) => self.failed.push(format!("{name}: {error:#}")),
            },
        }
        Ok(())
    }

    /// Those that have a stream, have written events, or are read by a projection.
    fn sources_of(&self, streams: &Streams) -> BTreeSet<String> {
        let statuses = self.services.values();
        let written = statuses.clone().filter(|status| status.head > 0);
        let read = statuses
            .flat_map(|status| &status.projections)
            .flat_map(|projection| projection.positions.0.keys());
        written
            .map(|status| &status.service)
            .chain(read)
            .chain(&streams.sources)
            .cloned()
            .collect()
    }

    /// Notes the projections that read a stream and belong to nobody who answers.
    fn expect(&mut self, streams: &Streams) {
        let statuses = self.services.values();
        let there: BTreeSet<&String> = statuses
            .flat_map(|status| &status.projections)
            .map(|projection| &projection.name)
            .collect();
        for (projection, stream) in &streams.projections {
            if !there.contains(projection) {
                self.unreachable.push(Unreachable::Projection {
                    projection: projection.clone(),
                    stream: stream.clone(),
                });
            }
        }
    }
}

/// What the streams and those who read them say of themselves.
async fn streams(nats: &Nats, only: &BTreeSet<String>) -> anyhow::Result<Streams> {
    match list(nats, only).await {
        Ok(found) => Ok(found),
        Err(error) => {
            nats.expect_connected()?;
            Err(error).context("list the streams")
        }
    }
}

async fn list(nats: &Nats, only: &BTreeSet<String>) -> anyhow::Result<Streams> {
    let mut found = Streams::default();
    let mut infos = nats.jetstream.streams();
    while let Some(info) = infos.try_next().await? {
        let (name, metadata) = (&info.config.name, &info.config.metadata);
        let is_ours = metadata
            .get("headwater.kind")
            .is_some_and(|kind| kind == "events");
        let source = metadata.get("headwater.source").filter(|_| is_ours);
        let Some(source) = source.filter(|source| only.is_empty() || only.contains(*source)) else {
            continue;
        };
        found.sources.insert(source.clone());
        let stream = nats.jetstream.get_stream(name).await?;
        let mut readers = stream.consumers();
        while let Some(reader) = readers.try_next().await? {
            if let Some(projection) = reader.config.metadata.get("headwater.projection") {
                found.projections.insert(projection.clone(), name.clone());
            }
        }
    }
    Ok(found)
}
