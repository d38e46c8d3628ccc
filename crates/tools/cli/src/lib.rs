//! The operator's tool `headwater`: the command line, and the commands that read and write events.
//! What of a shop is wrong is found in `survey`, and mended by `maintenance`.

pub use command::{Cli, Command, command_line, run};
pub use maintenance::verify;
pub use signals::Signals;
pub use terminal::Exit;

mod command;
pub mod decode;
pub mod publish;
pub mod ready;
pub mod shell;
mod signals;
pub mod tail;
