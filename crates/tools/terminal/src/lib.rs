//! What the operator's programs share: a result is printed for people or for programs, an error is
//! said once with what to do, and the exit code says what kind of error it was.

pub use confirm::{Unconfirmed, ask, confirm};
pub use error::{ErrorObject, command_line, end};
pub use exit::Exit;
pub use output::{Format, complain, printable};
pub use progress::{Bar, Screen};
pub use table::Table;

mod confirm;
mod error;
mod exit;
pub mod output;
mod progress;
pub mod table;
