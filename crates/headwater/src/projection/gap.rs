//! Fetching events that the stream does not have from their source's outbox.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use bytes::Bytes;

use super::apply::Gap;
use crate::bus::Bus;
use crate::envelope::{Envelope, EventId};
use crate::operator::{self, Endpoint, EventsAnswer, EventsRequest, fetch_events};

/// Fetches the first events of `gap`, as many as the source gives at once, in `bytes_max` or so.
///
/// # Errors
/// The source does not answer, or does not have them.
pub(super) async fn fetch(
    bus: &Bus,
    source: &str,
    gap: &Gap,
    bytes_max: usize,
) -> anyhow::Result<Vec<Envelope>> {
    let from = gap.have + 1;
    let epoch = Some(gap.epoch.to_string());
    let limit = usize::try_from(gap.came - from).unwrap_or(usize::MAX);
    let answer = ask(bus, source, epoch, (from, limit), bytes_max).await?;
    let first = answer.events.first().map(|row| row.position);
    ensure!(
        first == Some(from),
        "{source} does not have its event {from}"
    );
    Ok(envelopes(source, answer))
}

/// Fetches the first events that `source` has after `have`, which is of `epoch` if there is one,
/// and says how many it has in all.
///
/// # Errors
/// The source does not answer, or is of another epoch.
pub(super) async fn fetch_after(
    bus: &Bus,
    source: &str,
    epoch: Option<String>,
    have: u64,
    bytes_max: usize,
) -> anyhow::Result<(Vec<Envelope>, u64)> {
    let answer = ask(bus, source, epoch, (have + 1, usize::MAX), bytes_max).await?;
    let head = answer.head;
    Ok((envelopes(source, answer), head))
}

async fn ask(
    bus: &Bus,
    source: &str,
    epoch: Option<String>,
    (from, limit): (u64, usize),
    bytes_max: usize,
) -> anyhow::Result<EventsAnswer> {
    let request = EventsRequest {
        epoch,
        from,
        limit,
        max_bytes: Some(bus.reply_max().min(bytes_max)),
        offset: None,
    };
    let answer = fetch_events(request, async |request| {
        operator::ask::<EventsAnswer>(bus, source, Endpoint::Events, &request).await
    });
    answer
        .await
        .with_context(|| format!("ask {source} for its events from {from} on"))
}

fn envelopes(source: &str, answer: EventsAnswer) -> Vec<Envelope> {
    let (source, epoch): (Arc<str>, Arc<str>) = (source.into(), answer.epoch.into());
    answer
        .events
        .into_iter()
        .map(|row| Envelope {
            source: Arc::clone(&source),
            subject: row.subject.into(),
            id: Some(EventId {
                source: Arc::clone(&source),
                epoch: Arc::clone(&epoch),
                position: row.position,
            }),
            sequence: None,
            payload: Bytes::from(row.payload),
            traceparent: row.traceparent,
        })
        .collect()
}
