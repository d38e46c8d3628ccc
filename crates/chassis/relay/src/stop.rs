//! Why the relay has stopped.

use std::fmt;

/// Why the relay has stopped, and what the operator must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The stream and this database cannot both be right.
    Contradiction { what: String, advice: String },
    /// A limit or a setting of the broker refuses the next event.
    Limit(String),
    /// The next event is larger than the broker accepts.
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
