//! Fetching events that the stream does not have from their source's outbox.

use anyhow::{Context as _, ensure};
use bytes::Bytes;

use super::apply::Gap;
use crate::bus::Bus;
use crate::envelope::{Envelope, EventId};
use crate::operator::{self, EventsAnswer, EventsRequest};

/// Fetches the first events of `gap`, as many as the source gives at once.
///
/// # Errors
/// The source does not answer, or does not have them.
pub(super) async fn fetch(bus: &Bus, source: &str, gap: &Gap) -> anyhow::Result<Vec<Envelope>> {
    let from = gap.have + 1;
    let request = EventsRequest {
        epoch: Some(gap.epoch.clone()),
        from,
        limit: usize::try_from(gap.came - from).unwrap_or(usize::MAX),
    };
    let answer: EventsAnswer = operator::ask(bus, source, "events", &request)
        .await
        .with_context(|| format!("ask {source} for its events from {from} on"))?;
    let first = answer.events.first().map(|row| row.position);
    ensure!(
        first == Some(from),
        "{source} does not have its event {from}"
    );
    Ok(answer
        .events
        .into_iter()
        .map(|row| Envelope {
            source: source.to_owned(),
            subject: row.subject,
            id: Some(EventId {
                source: source.to_owned(),
                epoch: answer.epoch.clone(),
                position: row.position,
            }),
            sequence: None,
            payload: Bytes::from(row.payload),
            traceparent: row.traceparent,
        })
        .collect())
}
