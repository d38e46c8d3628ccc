//! Entry point. The commands are in the library.

use std::future::pending;
use std::io;
use std::process::ExitCode;

use cli::{Command, Exit};
use tokio::signal::unix::{Signal, SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let signals = signals();
    let cli = match cli::command_line() {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    // An import stops by itself, and says what it has done.
    let ends_itself = matches!(cli.command, Command::Import(_));
    tokio::select! {
        exit = cli::run(cli) => exit.into(),
        () = told_to_end(signals), if !ends_itself => Exit::Interrupted.into(),
    }
}

/// What tells process 1 to end, as in a container: it ignores signals that it does not handle.
/// Every other process is ended by them.
fn signals() -> Option<[io::Result<Signal>; 2]> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
    (std::process::id() == 1).then(|| kinds.map(signal))
}

async fn told_to_end(signals: Option<[io::Result<Signal>; 2]>) {
    let Some([Ok(mut interrupt), Ok(mut terminate)]) = signals else {
        return pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
