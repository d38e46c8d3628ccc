//! Where an event is in its outbox and in its stream.

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
