//! Where the reading of a stream starts.

use async_nats::jetstream::stream::Info;
use headwater_nats::stream;

/// Where a feed starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    /// Which stream it is.
    pub(crate) stream_created: i64,
    /// The last sequence that is known.
    pub(crate) known: u64,
}

impl Start {
    /// The place after a checkpoint at `sequence` of the stream made at `stream_created`.
    ///
    /// In another stream than the checkpoint's all is read again: positions tell what is new. In
    /// the same stream that is shorter now (the broker was put back from an older copy) what is
    /// left of it is known, so reading goes on at its end.
    pub(crate) fn after(stream_created: i64, sequence: u64, info: &Info) -> Self {
        let created = stream::created(info);
        let known = if created == stream_created {
            sequence.min(info.state.last_sequence)
        } else {
            0
        };
        Self {
            stream_created: created,
            known,
        }
    }

    /// The place after all that a stream has.
    pub(crate) fn at_end(info: &Info) -> Self {
        Self {
            stream_created: stream::created(info),
            known: info.state.last_sequence,
        }
    }

    /// Whether it is before a checkpoint at `sequence` of the same stream.
    pub(crate) fn is_earlier(self, stream_created: i64, sequence: u64) -> bool {
        self.stream_created == stream_created && self.known < sequence
    }

    /// The first sequence to read: the last known one, once more. Where the stream was rolled
    /// back and filled again, another event may lie there now: its position tells. It is never
    /// beyond the stream's end either, where the server would wait and skip what comes.
    pub(crate) fn first(self) -> u64 {
        self.known.max(1)
    }
}
