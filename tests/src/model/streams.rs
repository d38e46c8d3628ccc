//! Changes to streams behind the services' backs, and a check of their contents.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail, ensure};
use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, Context};
use futures_util::{StreamExt as _, stream};
use headwater::EventId;

use crate::eventually;
use crate::world::{Service, World};

/// Marks an event that this module published again.
const PLANTED: &str = "Torture-Planted";

/// How many events are read concurrently.
const AT_ONCE: usize = 64;

/// The events that were deleted from streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    deleted: BTreeSet<(Service, u64)>,
}

impl Streams {
    /// Makes missing streams such that events can be deleted from them.
    pub(super) async fn make_soft(world: &World) -> anyhow::Result<()> {
        let jetstream = context(world).await?;
        for source in Service::SOURCES {
            // The relay may have made it first.
            let _ = make_soft(&jetstream, source).await;
        }
        Ok(())
    }

    /// Replaces streams that relays made and that forbid deletion.
    pub(super) async fn soften(world: &World) -> anyhow::Result<()> {
        for source in Service::SOURCES {
            let stream = open(world, source).await?;
            if stream.cached_info().config.deny_delete {
                Self::lose(world, source).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn lose(world: &World, source: Service) -> anyhow::Result<()> {
        let jetstream = context(world).await?;
        jetstream.delete_stream(name(source)).await?;
        // The relay may have made it first.
        let _ = make_soft(&jetstream, source).await;
        Ok(())
    }

    pub(super) async fn lose_consumers(world: &World, source: Service) -> anyhow::Result<()> {
        let stream = open(world, source).await?;
        for name in ["purchases", "orders-catalogue"] {
            // Some streams have only one of these consumers, or none yet.
            let _ = stream.delete_consumer(name).await;
        }
        Ok(())
    }

    /// Publishes the last `count` events again, with their ids.
    pub(super) async fn publish_again(
        world: &World,
        source: Service,
        count: u64,
    ) -> anyhow::Result<()> {
        let jetstream = context(world).await?;
        let stream = open(world, source).await?;
        let last = stream.cached_info().state.last_sequence;
        for sequence in last.saturating_sub(count) + 1..=last {
            let Some(event) = at(&stream, sequence).await? else {
                continue;
            };
            // Publishing a copy again would wait for the dedupe window.
            if event.headers.get(PLANTED).is_some() {
                continue;
            }
            let mut headers = HeaderMap::new();
            if let Some(id) = event.headers.get(NATS_MESSAGE_ID) {
                headers.insert(NATS_MESSAGE_ID, id.as_str());
            }
            headers.insert(PLANTED, "yes");
            eventually("the dedupe window to pass", || async {
                let (headers, payload) = (headers.clone(), event.payload.clone());
                let subject = event.subject.clone();
                let sent = jetstream.publish_with_headers(subject, headers, payload);
                let ack = sent.await.map_err(|error| error.to_string())?;
                match ack.await {
                    Ok(ack) if !ack.duplicate => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
        Ok(())
    }

    /// Deletes the event `back` places before the last.
    pub(super) async fn delete(
        &mut self,
        world: &World,
        source: Service,
        back: u64,
    ) -> anyhow::Result<()> {
        let stream = open(world, source).await?;
        let last = stream.cached_info().state.last_sequence;
        let sequence = last.checked_sub(back).context("a long enough stream")?;
        let event = at(&stream, sequence).await?.context("an event there")?;
        if let Some(position) = id_of(&event).map(|id| id.position)
            && event.headers.get(PLANTED).is_none()
        {
            // Recorded first, because the answer may be lost.
            self.deleted.insert((source, position));
        }
        stream.delete_message(sequence).await?;
        Ok(())
    }

    /// Waits until the stream has everything up to `head`. Checks that it has each position once
    /// and in order, except deleted ones. Returns the number of events.
    pub(super) async fn check(
        &self,
        world: &World,
        source: Service,
        epoch: &str,
        head: u64,
    ) -> anyhow::Result<u64> {
        let last_is = |positions: &[u64]| positions.last().copied().unwrap_or(0);
        let positions = eventually("the stream to have all of the outbox", || async {
            let positions = positions(world, source, epoch)
                .await
                .map_err(|error| format!("{error:#}"))?;
            let missing = (last_is(&positions) + 1..=head)
                .any(|position| !self.deleted.contains(&(source, position)));
            if missing {
                Err(format!("it ends with {}, not {head}", last_is(&positions)))
            } else {
                Ok(positions)
            }
        })
        .await;
        let mut next = 1;
        for position in positions.iter().copied() {
            while next < position && self.deleted.contains(&(source, next)) {
                next += 1;
            }
            ensure!(
                position == next,
                "the stream of {} has position {position} where {next} should be: {positions:?}",
                source.name()
            );
            next += 1;
        }
        if next > head + 1 {
            bail!("the stream of {} is ahead of {head}", source.name());
        }
        Ok(positions.len() as u64)
    }
}

/// The positions of events that relays published, in stream order.
async fn positions(world: &World, source: Service, epoch: &str) -> anyhow::Result<Vec<u64>> {
    let stream = open(world, source).await?;
    let state = &stream.cached_info().state;
    let mut events = stream::iter(state.first_sequence.max(1)..=state.last_sequence)
        .map(|sequence| at(&stream, sequence))
        .buffered(AT_ONCE);
    let mut positions = Vec::new();
    while let Some(event) = events.next().await {
        let Some(event) = event? else { continue };
        let id = id_of(&event).context("an event without an event id")?;
        ensure!(*id.epoch == *epoch, "an event of another epoch: {id}");
        if event.headers.get(PLANTED).is_none() {
            positions.push(id.position);
        }
    }
    Ok(positions)
}

fn id_of(event: &StreamMessage) -> Option<EventId> {
    event.headers.get(NATS_MESSAGE_ID)?.as_str().parse().ok()
}

async fn at(stream: &Stream, sequence: u64) -> anyhow::Result<Option<StreamMessage>> {
    match stream.get_raw_message(sequence).await {
        Ok(event) => Ok(Some(event)),
        Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn context(world: &World) -> anyhow::Result<Context> {
    let client = async_nats::connect(world.broker.url()).await?;
    Ok(jetstream::new(client))
}

async fn open(world: &World, source: Service) -> anyhow::Result<Stream> {
    Ok(context(world).await?.get_stream(name(source)).await?)
}

async fn make_soft(jetstream: &Context, source: Service) -> anyhow::Result<()> {
    let mut settings = headwater::stream::settings(source.name(), 1);
    settings.deny_delete = false;
    settings.deny_purge = false;
    jetstream.create_stream(settings).await?;
    Ok(())
}

fn name(source: Service) -> String {
    headwater::stream::name(source.name())
}
