//! Selects dead letters.

use headwater_nats::control::Filter;

/// The selected blocked keys.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// Keys whose first letter the filter matches.
    All(Filter),
    /// Keys whose first letter only waits.
    Unblocked,
    /// One key, of one source or of all.
    BlockedKey {
        source: Option<String>,
        name: String,
    },
}
