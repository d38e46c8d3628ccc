//! What a write gave, or why it did not happen.

use headwater_event::Position;

/// What a write gave, once it is on the disk.
#[derive(Debug, Clone)]
pub struct Committed<T> {
    /// What the closure returned.
    pub value: T,
    /// The position of the last event that the closure appended, if it did.
    pub position: Option<Position>,
}

/// Why a write did not happen, or (`Unknown`) may not have.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The closure said no; its changes were rolled back.
    #[error("the write was refused")]
    Refused(E),
    /// The closure panicked; its changes were rolled back.
    #[error("the write panicked")]
    Panicked,
    /// Too many writes wait, or no transaction could begin, most often because another process
    /// holds the file's write lock: try again later.
    #[error("the database is busy")]
    Busy,
    /// The disk is full; nothing was written, and it goes on by itself when there is room.
    #[error("the disk is full; nothing was written")]
    Full,
    /// The commit failed, or the writer stopped first: the write may have happened or not.
    #[error("the outcome of the write is unknown")]
    Unknown,
    /// The file was renamed, deleted or replaced while it was open: a person has to put it back.
    #[error("the database file is not where it was opened; put it back")]
    Moved,
}

impl<E> WriteError<E> {
    /// Which one it is, in a word.
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

impl<E: std::error::Error + Send + Sync + 'static> WriteError<E> {
    /// The closure's own error where it is that, and as one chain.
    pub fn flat(self) -> anyhow::Error {
        match self {
            Self::Refused(error) => anyhow::Error::new(error),
            other => anyhow::anyhow!("{other}"),
        }
    }
}
