//! Prints the path of nats-server, and installs it if needed, for scripts.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let found = broker::find(&|progress| {
        // A closed stderr is not a failure.
        let _ = writeln!(stderr(), "{progress}");
    });
    let printed = match &found {
        Ok(binary) => writeln!(stdout(), "{}", binary.path.display()),
        Err(error) => writeln!(stderr(), "find-nats-server: {error}"),
    };
    if found.is_ok() && printed.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
