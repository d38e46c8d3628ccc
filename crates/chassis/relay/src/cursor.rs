//! Positions in a stream: an event's cursor, and the stream's start.

use async_nats::jetstream::stream::Info;
use headwater_nats::stream;

/// Where an event is, or after which own position and stream sequence the next one goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamCursor {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
}

impl StreamCursor {
    /// Before the first event.
    pub(crate) const START: Self = Self {
        position: 0,
        sequence: 0,
    };
}

/// Which stream it is, and where it begins.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StreamStart {
    pub(crate) created: i64,
    pub(crate) sequence: u64,
}

impl StreamStart {
    /// An empty stream begins where its first event will be stored.
    pub(crate) fn of(info: &Info) -> Self {
        Self {
            created: stream::created(info),
            sequence: info.state.first_sequence.max(1),
        }
    }
}
