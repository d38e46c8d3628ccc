//! Reads the end of a stream: its last sequence, and the newest event of this outbox.

use anyhow::Context as _;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, RawMessageErrorKind, Stream};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use headwater_event::EventId;

use crate::cursor::StreamCursor;

/// How many events at the end are read, and requested at a time. The last own event may not be the
/// newest, because an older one may have been published again.
const LOOK_BACK: usize = 64;

/// The end of a stream.
#[derive(Debug)]
pub(crate) struct Tail {
    /// The stream's state before its end was read.
    pub(crate) info: Info,
    /// The newest event at the end that is of this source and epoch.
    pub(crate) own: Option<Own>,
    /// The newest event of this source and another epoch that was met on the way.
    pub(crate) foreign: Option<EventId>,
}

#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
}

impl Tail {
    /// Reads the tail from the stream's leader. A follower may be behind, and an outdated tail
    /// could let an event be published twice.
    ///
    /// Walks back over events that are not from this outbox, to the stream's beginning if
    /// necessary. Even an empty outbox must do this: another process may just have appended the
    /// first event, or the database may be a copy that old.
    pub(crate) async fn read(stream: &Stream, source: &str, epoch: &str) -> anyhow::Result<Self> {
        let info = stream.get_info().await.context("read the stream's state")?;
        let state = info.state.clone();
        let mut tail = Self {
            info,
            own: None,
            foreign: None,
        };
        if state.messages > 0 {
            let newest_first = (state.first_sequence..=state.last_sequence).rev();
            let mut events = stream::iter(newest_first)
                .map(|sequence| at(stream, sequence))
                .buffered(LOOK_BACK)
                .enumerate();
            while let Some((looked_at, event)) = events.next().await {
                let event = event?;
                let id = event.as_ref().and_then(id_of);
                let foreign = id.filter(|id| *id.source == *source && *id.epoch != *epoch);
                tail.foreign = tail.foreign.or(foreign);
                let found = event.and_then(|event| own(&event, source, epoch));
                let position = |own: &Option<Own>| own.as_ref().map_or(0, |own| own.position);
                if position(&found) > position(&tail.own) {
                    tail.own = found;
                }
                if tail.own.is_some() && looked_at + 1 >= LOOK_BACK {
                    break;
                }
            }
        }
        Ok(tail)
    }
}

/// Whether `stream` holds this outbox's event at `cursor`.
pub(crate) async fn holds(
    stream: &Stream,
    source: &str,
    epoch: &str,
    cursor: StreamCursor,
) -> anyhow::Result<bool> {
    let event = at(stream, cursor.sequence).await?;
    let found = event.and_then(|event| own(&event, source, epoch));
    Ok(found.is_some_and(|own| own.position == cursor.position))
}

async fn at(stream: &Stream, sequence: u64) -> anyhow::Result<Option<StreamMessage>> {
    match stream.get_raw_message(sequence).await {
        Ok(event) => Ok(Some(event)),
        Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read sequence {sequence}")),
    }
}

fn id_of(event: &StreamMessage) -> Option<EventId> {
    event.headers.get(NATS_MESSAGE_ID)?.as_str().parse().ok()
}

fn own(event: &StreamMessage, source: &str, epoch: &str) -> Option<Own> {
    let id = id_of(event)?;
    (*id.source == *source && *id.epoch == *epoch).then(|| Own {
        position: id.position,
        sequence: event.sequence,
        subject: event.subject.to_string(),
        payload: event.payload.clone(),
    })
}
