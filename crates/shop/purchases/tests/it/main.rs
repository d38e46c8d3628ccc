//! The projection by itself: whatever the order in which the sources' events come, the store
//! shows the same.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod interleaving;
