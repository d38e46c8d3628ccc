//! What the operator's programs share: results printed as text or JSON, errors printed once with
//! what to do, and exit codes by kind of error.

pub use confirm::{Unconfirmed, ask, confirm};
pub use error::{ErrorObject, command_line, end};
pub use exit::Exit;
pub use output::{Format, complain, printable};
pub use progress::{Bar, Progress, Screen};
pub use table::Table;

mod confirm;
mod error;
mod exit;
pub mod output;
mod progress;
pub mod table;
