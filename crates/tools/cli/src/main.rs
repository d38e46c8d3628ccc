//! Entry point. The commands are in the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let signals = cli::Signals::listen();
    match cli::command_line() {
        Ok(cli) => signals.obeyed_by(cli).await.into(),
        Err(exit) => exit.into(),
    }
}
