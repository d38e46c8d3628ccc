//! What there is before a stream is made again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::ensure;
use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::{Config, Stream};
use client::Nats;
use futures_util::TryStreamExt as _;
use headwater::operator::{Endpoint, EventsAnswer, EventsRequest, StatusAnswer};
use headwater::stream;
use serde::Serialize;
use survey::Topology;
use terminal::Screen;

use crate::verify;

/// What there is before anything is done.
pub(crate) struct Before {
    pub(crate) name: String,
    pub(crate) status: StatusAnswer,
    /// The stream's settings; none where there is no stream.
    pub(crate) config: Option<Config>,
    /// The consumers of its readers, which go with the stream: they may not be allowed to make them.
    pub(crate) consumers: Vec<consumer::Config>,
    /// What is in the stream and not in the outbox, if the stream can be read.
    pub(crate) lost: Option<Lost>,
    /// The services with a projection of the source, and the names of these projections.
    pub(crate) readers: BTreeMap<String, Vec<String>>,
    /// Projections that know more than the outbox, as sentences.
    ahead: Vec<String>,
}

/// What goes with the stream.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Lost {
    by_hand: u64,
    former: u64,
    /// Events of this epoch that the outbox does not have.
    ahead: usize,
    /// Events of this epoch that are another one in the outbox.
    altered: usize,
}

impl Before {
    /// Looks at the source, its stream, and who reads it. Errors with [`Unreachable`] where the
    /// source does not answer: nobody would fill the stream.
    pub(crate) async fn look(nats: &Nats, source: &str) -> anyhow::Result<Self> {
        let status = nats.status(source).await?;
        ensure!(
            status.parts.contains_key("relay"),
            "{source} has no outbox that a stream could be filled from"
        );
        expect_whole(nats, &status).await?;
        let name = stream::name(source);
        let found = nats.stream(&name).await?;
        let consumers = match &found {
            Some(stream) => consumers(stream).await?,
            None => Vec::new(),
        };
        let config = found.map(|stream| stream.cached_info().config.clone());
        let lost = match &config {
            Some(_) => Lost::of(nats, &status).await.ok(),
            None => Some(Lost::default()),
        };
        let topology = Topology::look(nats, &BTreeSet::new(), Duration::ZERO).await?;
        Ok(Self {
            name,
            config,
            consumers,
            lost,
            readers: readers(&topology, source),
            ahead: ahead(&topology, &status),
            status,
        })
    }

    /// What will be done, and what is lost.
    pub(crate) fn plan(&self) -> Vec<String> {
        let Self { name, status, .. } = self;
        let (source, head) = (&status.service, status.head);
        let mut lines = vec![format!(
            "{name} is deleted, made again with its settings, and filled with the {head} events of \
             the outbox of {source} (epoch {})",
            status.epoch
        )];
        match &self.lost {
            None => lines.push(format!(
                "{name} cannot be read: how many events are lost with it is not known"
            )),
            Some(lost) => lines.extend(lost.lines()),
        }
        lines.extend(self.ahead.iter().cloned());
        for (service, projections) in &self.readers {
            lines.push(format!(
                "{} of {service} is rebuilt",
                projections.join(", ")
            ));
        }
        lines
    }
}

/// The consumers of projections.
async fn consumers(stream: &Stream) -> anyhow::Result<Vec<consumer::Config>> {
    let all = stream.consumers().map_ok(|consumer| consumer.config);
    let mut all: Vec<_> = all.try_collect().await?;
    all.retain(|config| config.metadata.contains_key("headwater.projection"));
    Ok(all)
}

/// Whether the outbox has its first and its newest event.
async fn expect_whole(nats: &Nats, status: &StatusAnswer) -> anyhow::Result<()> {
    for from in [1, status.head] {
        if status.head == 0 {
            break;
        }
        let request = EventsRequest {
            epoch: Some(status.epoch.clone()),
            from,
            limit: 1,
            max_bytes: Some(0),
            offset: Some(0),
        };
        let source = &status.service;
        let answer: EventsAnswer = nats.ask(source, Endpoint::Events, &request).await?;
        let first = answer.events.first().map(|row| row.position);
        ensure!(
            first == Some(from),
            "the outbox of {source} does not have its event {from} of {}: it cannot fill a stream",
            status.head
        );
    }
    Ok(())
}

fn readers(topology: &Topology, source: &str) -> BTreeMap<String, Vec<String>> {
    let mut readers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (service, projection) in topology.projections() {
        if projection.positions.0.contains_key(source) {
            let names = readers.entry(service.clone()).or_default();
            names.push(projection.name.clone());
        }
    }
    readers
}

/// Says which projections have applied more than the outbox has.
fn ahead(topology: &Topology, source: &StatusAnswer) -> Vec<String> {
    let projections = topology.projections();
    projections
        .filter_map(|(_, projection)| {
            let applied = *projection.positions.0.get(&source.service)?;
            (applied > source.head).then(|| {
                format!(
                    "{} has applied {applied} of {}: is the database of {} an old copy? Then put \
                     back the newest one instead",
                    projection.name, source.head, source.service
                )
            })
        })
        .collect()
}

impl Lost {
    async fn of(nats: &Nats, status: &StatusAnswer) -> anyhow::Result<Self> {
        let bar = Screen::new().bar(&status.service, status.head);
        let found = verify::source::check(nats, status, Duration::ZERO, &bar).await?;
        Ok(Self {
            by_hand: found.by_hand,
            former: found.former.values().sum(),
            ahead: found.ahead.len(),
            altered: found.altered.len(),
        })
    }

    fn lines(&self) -> Vec<String> {
        let counts = [
            (self.by_hand, "that were published by hand"),
            (self.former, "of other epochs"),
            (self.ahead as u64, "that the outbox does not have"),
            (self.altered as u64, "that are others in the outbox"),
        ];
        let lost = counts.iter().filter(|(count, _)| *count > 0);
        lost.map(|(count, which)| format!("lost with the stream: {count} events {which}"))
            .collect()
    }
}
