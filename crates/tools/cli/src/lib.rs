//! The operator's tool `headwater`: the command line, and the commands that read and write events.
//! `survey` finds what is wrong with a shop, `maintenance` repairs it.

pub use command::{Cli, Command, command_line, run};
pub use maintenance::verify;
pub use signals::Signals;
pub use terminal::Exit;

mod command;
pub mod decode;
pub mod new;
pub mod publish;
pub mod ready;
pub mod shell;
mod signals;
pub mod tail;
