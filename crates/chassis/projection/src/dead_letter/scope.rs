//! Which dead letters are meant.

use headwater_nats::control::Filter;

/// The lanes that are meant.
#[derive(Debug, Clone)]
pub(super) enum Scope {
    /// Those whose first letter this lets through.
    All(Filter),
    Unblocked,
    /// Of one source, or of all.
    BlockedKey {
        source: Option<String>,
        name: String,
    },
}
