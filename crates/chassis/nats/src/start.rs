//! Where to start reading a stream.

use async_nats::jetstream::stream::Info;

use crate::stream;

/// Where a feed starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// Which stream it is.
    pub stream_created: i64,
    /// The last known sequence.
    pub known: u64,
}

impl Start {
    /// The start after a checkpoint at `sequence` of the stream created at `stream_created`.
    ///
    /// Another stream than the checkpoint's is read completely: positions show what is new. If the
    /// same stream is shorter now (the broker was restored from an older copy), its remaining
    /// events are known, and reading continues at its end.
    pub fn after(stream_created: i64, sequence: u64, info: &Info) -> Self {
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

    /// The start after everything that the stream has.
    pub fn at_end(info: &Info) -> Self {
        Self {
            stream_created: stream::created(info),
            known: info.state.last_sequence,
        }
    }

    /// Whether this is before a checkpoint at `sequence` of the same stream.
    pub fn is_earlier(self, stream_created: i64, sequence: u64) -> bool {
        self.stream_created == stream_created && self.known < sequence
    }

    /// The first sequence to read: the last known one, again. If the stream was rolled back and
    /// refilled, that sequence may hold another event now; the event's position shows it. The
    /// result is never beyond the stream's end, where the server would wait and skip what comes.
    pub fn first(self) -> u64 {
        self.known.max(1)
    }
}
