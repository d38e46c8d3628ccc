//! Fetching events that the stream does not have from their source's outbox.

use std::sync::Arc;

use anyhow::ensure;

use super::apply::Gap;
use super::outbox;
use crate::bus::Bus;
use crate::envelope::Envelope;

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
    let answer = outbox::page(
        bus,
        source,
        Some(&gap.epoch),
        from,
        gap.came - from,
        bytes_max,
    )
    .await?;
    let first = answer.events.first().map(|row| row.position);
    ensure!(
        first == Some(from),
        "{source} does not have its event {from}"
    );
    let (source, epoch): (Arc<str>, Arc<str>) = (source.into(), answer.epoch.into());
    let events = answer.events.into_iter();
    Ok(events
        .map(|row| outbox::envelope(&source, &epoch, row))
        .collect())
}
