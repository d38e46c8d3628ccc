//! Where an event is in its outbox and in its stream, and where that begins.

use async_nats::jetstream::stream::Info;
use headwater_nats::stream;

/// Where an event is, or where the next one goes: after the last own position, and after the
/// stream's last sequence.
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

/// Where a stream begins, and which one it is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StreamStart {
    pub(crate) created: i64,
    pub(crate) sequence: u64,
}

impl StreamStart {
    /// An empty stream begins where its first event will be.
    pub(crate) fn of(info: &Info) -> Self {
        Self {
            created: stream::created(info),
            sequence: info.state.first_sequence.max(1),
        }
    }
}
