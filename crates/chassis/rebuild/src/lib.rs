//! Rebuilds: build a read store again next to the live one, to replace it or to be compared with
//! it.
//!
//! Start at [`Rebuilder`].

#![warn(missing_docs)]

mod align;
mod attempt;
mod changes;
mod compare;
mod error;
mod handle;
mod rebuild;
mod replay;
mod take_over;
mod thread;

pub use attempt::Store;
pub use error::Error;
pub use handle::{Busy, Handle, Task};
pub use rebuild::{Rebuilder, check_tables};
