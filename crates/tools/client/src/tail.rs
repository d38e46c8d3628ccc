//! The end of a source's stream: how far its relay has published.

use anyhow::Context as _;
use async_nats::jetstream::stream::Info;
use futures_util::{StreamExt as _, stream};
use headwater::EventId;

use crate::direct::{Event, at};
use crate::nats::Nats;

/// How many events at the end are read: foreign events may follow the relay's.
const LOOK_BACK: u64 = 256;

/// How many events are read at least, and how many at once. The newest event need not have the
/// highest position: a publisher may have repeated an older one.
const AT_A_TIME: usize = 16;

/// The newest event of a source in its stream; position 0 if there is none.
#[derive(Debug)]
pub struct Tail {
    pub position: u64,
    pub sequence: u64,
    stream: String,
}

/// The position of a source's first event in its stream; `None` if it is not among the stream's
/// first events or cannot be read. `epoch` as for [`Tail::read`].
pub async fn first_position(
    nats: &Nats,
    info: &Info,
    source: &str,
    epoch: Option<&str>,
) -> Option<u64> {
    let (state, name) = (&info.state, &info.config.name);
    let stream = nats.jetstream.get_stream_no_info(name).await.ok()?;
    let first = state.first_sequence.max(1);
    let last = state.last_sequence.min(first + AT_A_TIME as u64 - 1);
    let events = stream::iter(first..=last)
        .map(|sequence| at(&stream, sequence))
        .buffered(AT_A_TIME);
    let positions = events.filter_map(async |event| {
        let id = event.ok()??.id?;
        is_own(&id, source, epoch).then_some(id.position)
    });
    std::pin::pin!(positions).next().await
}

fn is_own(id: &EventId, source: &str, epoch: Option<&str>) -> bool {
    *id.source == *source && epoch.is_none_or(|epoch| *id.epoch == *epoch)
}

impl Tail {
    /// Reads the end of the stream. `epoch`: the source's epoch if known, otherwise any epoch
    /// counts. `None` if too many events at the end are not the source's.
    pub async fn read(
        nats: &Nats,
        info: &Info,
        source: &str,
        epoch: Option<&str>,
    ) -> anyhow::Result<Option<Self>> {
        let (state, name) = (&info.state, &info.config.name);
        let stream = nats.jetstream.get_stream_no_info(name).await?;
        let first = state.first_sequence.max(1);
        let earliest = first.max(state.last_sequence.saturating_sub(LOOK_BACK - 1));
        let newest_first = (earliest..=state.last_sequence).rev();
        let mut events = stream::iter(newest_first)
            .map(|sequence| at(&stream, sequence))
            .buffered(AT_A_TIME)
            .enumerate();
        let mut found: Option<Self> = None;
        while let Some((looked_at, event)) = events.next().await {
            let event = event.with_context(|| format!("read the end of {name}"))?;
            let further = found.as_ref().map_or(0, |at| at.position + 1);
            if let Some(Event {
                id: Some(id),
                sequence,
                ..
            }) = event
                && is_own(&id, source, epoch)
                && id.position >= further
            {
                found = Some(Self::at(name, id.position, sequence));
            }
            if found.is_some() && looked_at + 1 >= AT_A_TIME {
                break;
            }
        }
        if found.is_some() {
            return Ok(found);
        }
        // The whole stream was read: it has no event of the source.
        let is_whole = earliest == first;
        Ok(is_whole.then(|| Self::at(name, 0, 0)))
    }

    fn at(stream: &str, position: u64, sequence: u64) -> Self {
        Self {
            position,
            sequence,
            stream: stream.to_owned(),
        }
    }

    /// When the event at an earlier position was stored, in milliseconds since 1970. It is looked
    /// up where it must be if no foreign event lies in between; otherwise `None`.
    pub async fn stored_ms(&self, nats: &Nats, source: &str, position: u64) -> Option<i64> {
        let before = self.position.checked_sub(position)?;
        let sequence = self.sequence.checked_sub(before)?;
        let stream = nats.jetstream.get_stream_no_info(&self.stream).await.ok()?;
        let event = at(&stream, sequence).await.ok()??;
        let id = event.id?;
        let is_it = *id.source == *source && id.position == position;
        let stored_ms = event.at.unix_timestamp_nanos() / 1_000_000;
        i64::try_from(stored_ms).ok().filter(|_| is_it)
    }
}
