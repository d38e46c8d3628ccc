//! Entry point. The commands are in the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match cli::command_line() {
        Ok(cli) => cli::run(cli).await.into(),
        Err(exit) => exit.into(),
    }
}
