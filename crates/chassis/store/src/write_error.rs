//! The result of a write, or why it did not happen.

use headwater_event::Position;

/// The result of a write that is on the disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Committed<T> {
    /// What the closure returned.
    pub value: T,
    /// The position of the last event that the closure appended, if any.
    pub position: Option<Position>,
}

/// Why a write did not happen or, for `Unknown`, may not have happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError<E> {
    /// The closure returned an error; its changes were rolled back.
    #[error(transparent)]
    Refused(E),
    /// The closure panicked; its changes were rolled back.
    #[error("the write panicked")]
    Panicked,
    /// Too many writes wait, or no transaction could begin, usually because another process holds
    /// the file's write lock. Try again later.
    #[error("the database is busy")]
    Busy,
    /// The disk is full; nothing was written. Writes resume automatically when there is space.
    #[error("the disk is full; nothing was written")]
    Full,
    /// The commit failed, or the writer stopped first: the write may or may not have happened.
    #[error("the outcome of the write is unknown")]
    Unknown,
    /// The file was renamed, deleted or replaced while it was open; an operator must put it back.
    #[error("the database file is not where it was opened; put it back")]
    Moved,
}

impl<E> WriteError<E> {
    /// The name of the variant in lower case.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Panicked => "panicked",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Unknown => "unknown",
            Self::Moved => "moved",
        }
    }
}
