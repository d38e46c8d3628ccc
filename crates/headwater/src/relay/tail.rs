//! Reading the end of a stream: its last sequence, and the last event that is this outbox's.

use anyhow::Context as _;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::envelope::EventId;

/// How many events are asked for at a time when the last own one is not the very last.
const LOOK_BACK_IN_FLIGHT: usize = 64;

/// The end of a stream.
#[derive(Debug)]
pub(super) struct Tail {
    /// The stream's last sequence; 0 when nothing was ever stored.
    pub(super) last_sequence: u64,
    /// The last event of this life of this source, if there is one.
    pub(super) own: Option<Own>,
}

#[derive(Debug)]
pub(super) struct Own {
    pub(super) position: u64,
    pub(super) subject: String,
    pub(super) payload: Bytes,
}

impl Tail {
    /// Reads the tail from the stream's leader: a follower's copy may be behind, and a tail that
    /// is older than the fence would let an event be published twice.
    ///
    /// Walks back over events that are not this outbox's. An outbox that is still empty
    /// (`head` is 0) can have none in the stream.
    pub(super) async fn read(
        stream: &Stream,
        source: &str,
        epoch: &str,
        head: u64,
    ) -> anyhow::Result<Self> {
        let state = stream
            .get_info()
            .await
            .context("read the stream's state")?
            .state;
        let mut tail = Self {
            last_sequence: state.last_sequence,
            own: None,
        };
        if head > 0 && state.messages > 0 {
            let newest_first = (state.first_sequence..=state.last_sequence).rev();
            let mut events = stream::iter(newest_first)
                .map(|sequence| at(stream, sequence))
                .buffered(LOOK_BACK_IN_FLIGHT);
            while let Some(event) = events.try_next().await? {
                tail.own = event.and_then(|event| own(&event, source, epoch));
                if tail.own.is_some() {
                    break;
                }
            }
        }
        Ok(tail)
    }
}

async fn at(stream: &Stream, sequence: u64) -> anyhow::Result<Option<StreamMessage>> {
    match stream.get_raw_message(sequence).await {
        Ok(event) => Ok(Some(event)),
        Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read sequence {sequence}")),
    }
}

fn own(event: &StreamMessage, source: &str, epoch: &str) -> Option<Own> {
    let id: EventId = event.headers.get(NATS_MESSAGE_ID)?.as_str().parse().ok()?;
    (id.source == source && id.epoch == epoch).then(|| Own {
        position: id.position,
        subject: event.subject.to_string(),
        payload: event.payload.clone(),
    })
}
