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
    let request = EventsRequest {
        epoch: Some(gap.epoch.to_string()),
        from,
        limit: usize::try_from(gap.came - from).unwrap_or(usize::MAX),
        max_bytes: Some(bus.reply_max().min(bytes_max)),
        offset: None,
    };
    let answer = fetch_events(request, async |request| {
        operator::ask::<EventsAnswer>(bus, source, Endpoint::Events, &request).await
    })
    .await
    .with_context(|| format!("ask {source} for its events from {from} on"))?;
    let first = answer.events.first().map(|row| row.position);
    ensure!(
        first == Some(from),
        "{source} does not have its event {from}"
    );
    let (source, epoch): (Arc<str>, Arc<str>) = (source.into(), answer.epoch.into());
    Ok(answer
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
        .collect())
}
