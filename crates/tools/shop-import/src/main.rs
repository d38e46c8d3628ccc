//! Entry point. The import is in the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match shop_import::command_line() {
        Ok(args) => shop_import::main(args).await.into(),
        Err(exit) => exit.into(),
    }
}
