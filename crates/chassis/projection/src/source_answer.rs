//! What a source answers when it is asked what it is.

use std::sync::Arc;

/// What a source answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its epoch.
    pub(crate) epoch: Arc<str>,
    /// The newest position of its outbox.
    pub(crate) head: u64,
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
