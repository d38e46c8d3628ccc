//! Fetches events that the stream does not have from their source's outbox.

use std::sync::Arc;

use anyhow::ensure;
use headwater_event::Envelope;
use headwater_nats::bus::Bus;
use headwater_nats::control::EventsAnswer;

use crate::outbox;

/// Events missing between the checkpoint and the next event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) epoch: Arc<str>,
    /// The last position before the gap.
    pub(crate) have: u64,
    /// The position after the gap.
    pub(crate) came: u64,
}

impl Gap {
    /// Whether both gaps begin at the same position. That is the same gap, even if more events have
    /// come since.
    pub(crate) fn is_where(&self, other: &Self) -> bool {
        self.epoch == other.epoch && self.have == other.have
    }
}

/// Fetches the first events of `gap`, as many as the source returns at once, in about `bytes_max`.
///
/// # Errors
/// The source does not answer, or does not have them.
pub(super) async fn fetch(
    bus: &Bus,
    source: &str,
    gap: &Gap,
    bytes_max: usize,
) -> anyhow::Result<Vec<Envelope>> {
    let (from, epoch) = (gap.have + 1, Some(&*gap.epoch));
    let answer = outbox::page(bus, source, epoch, from, gap.came - from, bytes_max).await?;
    let first = answer.events.first().map(|row| row.position);
    ensure!(
        first == Some(from),
        "the outbox of {source} does not have event {from}"
    );
    Ok(envelopes(source, answer))
}

/// Fetches the first events that `source` has after `have`, which is of `epoch` if given. Also
/// returns the outbox's newest position.
///
/// # Errors
/// The source does not answer, or is of another epoch.
pub(super) async fn fetch_after(
    bus: &Bus,
    source: &str,
    epoch: Option<&str>,
    have: u64,
    bytes_max: usize,
) -> anyhow::Result<(Vec<Envelope>, u64)> {
    let answer = outbox::page(bus, source, epoch, have + 1, u64::MAX, bytes_max).await?;
    let head = answer.head;
    Ok((envelopes(source, answer), head))
}

fn envelopes(source: &str, answer: EventsAnswer) -> Vec<Envelope> {
    let (source, epoch): (Arc<str>, Arc<str>) = (source.into(), answer.epoch.into());
    let events = answer.events.into_iter();
    events
        .map(|row| outbox::envelope(&source, &epoch, row))
        .collect()
}
