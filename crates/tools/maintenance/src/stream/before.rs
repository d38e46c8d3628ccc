//! The state before a stream is created again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::ensure;
use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::{Config, Stream};
use client::Nats;
use futures_util::TryStreamExt as _;
use headwater::operator::{Endpoint, EventsAnswer, EventsRequest, ProjectionStatus, StatusAnswer};
use headwater::stream;
use serde::Serialize;
use survey::Topology;
use terminal::Screen;

use crate::verify;

/// The state before the restore.
#[derive(Debug)]
pub struct Before {
    pub(crate) name: String,
    pub(crate) status: StatusAnswer,
    /// The stream's settings; `None` if there is no stream.
    pub(crate) config: Option<Config>,
    /// The stream's consumers, which are deleted with it: services may not be allowed to create
    /// them.
    pub(crate) consumers: Vec<consumer::Config>,
    /// The events that are in the stream and not in the outbox, if the stream can be read.
    pub(crate) lost: Option<Lost>,
    /// The services with a projection of the source, and the names of these projections.
    pub(crate) readers: BTreeMap<String, Vec<String>>,
    /// One sentence for each projection that has applied more than the outbox has.
    ahead: Vec<String>,
}

/// What is lost with the stream.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Lost {
    by_hand: u64,
    former: u64,
    /// Events of this epoch that the outbox does not have.
    ahead: usize,
    /// Events of this epoch that differ from the outbox.
    altered: usize,
}

impl Before {
    /// Reads the state of the source, its stream and its projections. Returns `Unreachable` if
    /// the source does not answer: nothing would refill the stream.
    pub async fn look(nats: &Nats, source: &str) -> anyhow::Result<Self> {
        let status = nats.status(source).await?;
        ensure!(
            status.parts.contains_key("relay"),
            "{source} has no outbox to fill a stream from"
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
            readers: readers(topology.projections(), source),
            ahead: ahead(&topology, &status),
            status,
        })
    }

    /// What will be done, and what is lost.
    pub fn plan(&self) -> Vec<String> {
        let Self { name, status, .. } = self;
        let (source, head) = (&status.service, status.head);
        let mut lines = vec![format!(
            "{name} is deleted, created again with its settings, and filled with the {head} \
             events of the outbox of {source} (epoch {})",
            status.epoch
        )];
        match &self.lost {
            None => lines.push(format!(
                "{name} cannot be read: the number of events lost with it is unknown"
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

/// Checks that the outbox has its first and its newest event.
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

fn readers<'a>(
    projections: impl Iterator<Item = (&'a String, &'a ProjectionStatus)>,
    source: &str,
) -> BTreeMap<String, Vec<String>> {
    let mut readers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (service, projection) in projections {
        // What an effect did is not done again.
        if projection.positions.0.contains_key(source) && !projection.is_effect {
            let names = readers.entry(service.clone()).or_default();
            names.push(projection.name.clone());
        }
    }
    readers
}

/// Reports projections that have applied more than the outbox has.
fn ahead(topology: &Topology, source: &StatusAnswer) -> Vec<String> {
    let projections = topology.projections();
    projections
        .filter_map(|(_, projection)| {
            let applied = *projection.positions.0.get(&source.service)?;
            (applied > source.head).then(|| {
                format!(
                    "{} has applied {applied} of {}: is the database of {} an old copy? If so, restore \
                     the newest one instead",
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
            (self.altered as u64, "that differ from the outbox"),
        ];
        let lost = counts.iter().filter(|(count, _)| *count > 0);
        lost.map(|(count, which)| format!("lost with the stream: {count} events {which}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_effect_is_not_rebuilt_with_the_projections() {
        let status = |name: &str, is_effect: bool| -> ProjectionStatus {
            let status = json!({
                "name": name, "version": 1, "positions": {"orders": 7}, "is_complete": true,
                "dead_letters": 0, "can_rebuild": !is_effect, "is_effect": is_effect,
            });
            serde_json::from_value(status).expect("a status")
        };
        let all = [status("copy", false), status("orders-webhook", true)];
        let service = "orders".to_owned();
        let readers = readers(all.iter().map(|one| (&service, one)), "orders");
        assert_eq!(readers, [(service.clone(), vec!["copy".to_owned()])].into());
    }
}
