//! Rebuilds: a read store folded once more beside the live one, to take its place or to be
//! compared with it.
//!
//! Start at [`Rebuilder`].

#![warn(missing_docs)]

mod align;
mod attempt;
mod changes;
mod compare;
mod handle;
mod rebuild;
mod take_over;
mod thread;

pub use attempt::Store;
pub use handle::{Busy, Handle};
pub use rebuild::{Rebuilder, check_tables};
