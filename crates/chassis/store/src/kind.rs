//! What a database file holds.

/// What a database file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What nobody else has: the file must stay where it was opened.
    Own,
    /// The same, with personal data that is encrypted with the keys of a key file.
    Personal,
    /// A copy, which is rebuilt when it is missing.
    ReadStore,
}

impl Kind {
    /// Whether nobody else has what the file holds.
    pub fn is_own(self) -> bool {
        self != Self::ReadStore
    }
}
