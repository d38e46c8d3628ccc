//! The kinds of database files.

/// What a database file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Original data: the file must stay where it was opened.
    Own,
    /// [`Own`](Self::Own), with personal data that is encrypted with the keys of a key file.
    Personal,
    /// A copy, which is rebuilt if it is missing.
    ReadStore,
}

impl Kind {
    /// Whether the file holds original data.
    pub fn is_own(self) -> bool {
        self != Self::ReadStore
    }
}
