//! Why the relay stands still.

use std::fmt;

/// Why the relay stands still, and what a person has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The stream and this database cannot both be right.
    Contradiction { what: String, advice: String },
    /// A limit or a setting of the broker keeps the next event out.
    Limit(String),
    /// The next event is larger than the broker takes.
    TooLarge(String),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contradiction { what, advice } => write!(f, "{what}; {advice}"),
            Self::Limit(what) | Self::TooLarge(what) => f.write_str(what),
        }
    }
}
