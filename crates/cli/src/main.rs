//! Entry point. The commands are in the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run(cli::command_line()).await.into()
}
