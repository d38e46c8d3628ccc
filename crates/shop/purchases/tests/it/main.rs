//! The projection alone: in whichever order the events of the sources come, the store shows the
//! same.

#![expect(clippy::unwrap_used, reason = "an unexpected result fails the test")]

mod interleaving;
