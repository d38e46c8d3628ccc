//! Requests events from a source's outbox: the truth about every event with a position.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use headwater_event::{Envelope, EventId, Row};
use headwater_nats::bus::Bus;
use headwater_nats::control::{self, Endpoint, EventsAnswer, EventsRequest, fetch_events};

/// The most positions in one request: the source returns no more at once.
const SPAN: u64 = 1000;

/// The approximate bytes of one answer: what a slow link carries before the request times out.
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// Events of a source's outbox.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// The present epoch of the source.
    pub(crate) epoch: Arc<str>,
    /// The requested rows that exist.
    pub(crate) rows: BTreeMap<u64, Row>,
}

/// A page of the outbox of `source`, of about `bytes_max`, in `epoch` or the present one.
///
/// # Errors
/// The source does not answer, or has another epoch now.
pub(super) async fn page(
    bus: &Bus,
    source: &str,
    epoch: Option<&str>,
    from: u64,
    limit: u64,
    bytes_max: usize,
) -> anyhow::Result<EventsAnswer> {
    let request = EventsRequest {
        epoch: epoch.map(ToOwned::to_owned),
        from,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        max_bytes: Some(bus.reply_max().min(bytes_max)),
        offset: None,
    };
    fetch_events(request, async |request| {
        control::ask::<EventsAnswer>(bus, source, Endpoint::Events, &request).await
    })
    .await
    .with_context(|| format!("ask {source} for its events from {from} on"))
}

/// The rows of the outbox of `source` at `positions`, in ascending order.
///
/// # Errors
/// The source does not answer, or begins another epoch meanwhile.
pub(crate) async fn at(bus: &Bus, source: &str, positions: &[u64]) -> anyhow::Result<Outbox> {
    let mut found: Option<Outbox> = None;
    let mut wanted = positions;
    while let Some(&from) = wanted.first() {
        let near = wanted.partition_point(|position| *position < from.saturating_add(SPAN));
        let limit = wanted[near - 1] - from + 1;
        let answer = page(bus, source, None, from, limit, PAGE_BYTES_MAX).await?;
        ensure!(
            !answer.events.is_empty() || from > answer.head,
            "{source} contradicts itself about event {from}"
        );
        // A page has fewer rows than requested if they are large, and none beyond the head.
        let last = answer.events.last().map(|row| row.position);
        let upto = last.unwrap_or(from + limit - 1);
        let outbox = found.get_or_insert_with(|| Outbox {
            epoch: answer.epoch.as_str().into(),
            rows: BTreeMap::new(),
        });
        ensure!(
            *outbox.epoch == *answer.epoch,
            "{source} has begun another epoch meanwhile"
        );
        let rows = answer.events.into_iter();
        let rows = rows.filter(|row| wanted.binary_search(&row.position).is_ok());
        outbox.rows.extend(rows.map(|row| (row.position, row)));
        wanted = &wanted[wanted.partition_point(|position| *position <= upto)..];
    }
    found.context("no positions were asked for")
}

/// Replaces the content of `events`, which came from the stream of `source`, with the outbox's
/// content at their positions. Events at a position that the outbox does not have are marked as
/// known. Events published by hand stay as they are, and so do events of former epochs, whose
/// outboxes are gone.
///
/// # Errors
/// The source does not answer.
pub(super) async fn correct(
    bus: &Bus,
    source: &str,
    events: &mut [Envelope],
) -> anyhow::Result<()> {
    let own = |event: &Envelope| {
        let is_delivered = event.sequence.is_some();
        let id = event.id.as_ref().filter(|id| *id.source == *source)?;
        is_delivered.then_some(id.position)
    };
    let positions: BTreeSet<u64> = events.iter().filter_map(own).collect();
    if positions.is_empty() {
        return Ok(());
    }
    let positions: Vec<u64> = positions.into_iter().collect();
    let outbox = at(bus, source, &positions).await?;
    for event in events.iter_mut().filter(|event| own(event).is_some()) {
        let Some(id) = event.id.as_mut().filter(|id| id.epoch == outbox.epoch) else {
            continue;
        };
        match outbox.rows.get(&id.position) {
            Some(row) => {
                event.subject = row.subject.as_str().into();
                event.payload = row.payload.clone().into();
            }
            // Before every event: all projections have passed it.
            None => id.position = 0,
        }
    }
    Ok(())
}

/// The event in `row` of the outbox of `source`.
pub(super) fn envelope(source: &Arc<str>, epoch: &Arc<str>, row: Row) -> Envelope {
    Envelope {
        source: Arc::clone(source),
        subject: row.subject.into(),
        id: Some(EventId {
            source: Arc::clone(source),
            epoch: Arc::clone(epoch),
            position: row.position,
        }),
        sequence: None,
        payload: row.payload.into(),
        traceparent: row.traceparent,
    }
}
