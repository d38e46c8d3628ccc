//! What a source answers about its epoch and outbox.

use std::sync::Arc;

/// A source's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The source's epoch.
    pub(crate) epoch: Arc<str>,
    /// The newest position of its outbox.
    pub(crate) head: u64,
    /// When the first requested event was recorded, in milliseconds since 1970.
    pub(crate) recorded_at: Option<i64>,
}

/// What a projection has yet to apply of a source, as of the source's last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The newest position of the source's outbox.
    pub head: u64,
    /// How many more events the projection has applied than the outbox has.
    pub ahead: u64,
    /// When the first event that was not yet applied was recorded, in milliseconds since 1970.
    pub oldest_at: Option<i64>,
}

/// A source's answer about its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EpochAnswer {
    /// The source was not asked.
    NotAsked,
    /// The source did not answer.
    Away,
    /// The source's epoch.
    Epoch(Arc<str>),
}
