//! What a source answers when it is asked what it is.

use std::sync::Arc;

/// What a source answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its epoch.
    pub(crate) epoch: Arc<str>,
    /// The newest position of its outbox.
    pub(crate) head: u64,
    /// When the first event was recorded that was asked for, in milliseconds since 1970.
    pub(crate) recorded_at: Option<i64>,
}

/// What a projection lacks of a source, as that answered last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The newest position of the source's outbox.
    pub head: u64,
    /// How many more events were applied than the outbox has.
    pub ahead: u64,
    /// When the first event that was not applied then was recorded, in milliseconds since 1970.
    pub oldest_at: Option<i64>,
}

/// What a source answered about its epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EpochAnswer {
    /// It was not asked.
    NotAsked,
    /// It did not answer.
    Away,
    /// This is its epoch.
    Epoch(Arc<str>),
}
