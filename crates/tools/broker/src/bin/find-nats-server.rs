//! Prints where nats-server is, after installing it if need be, for scripts that want one.

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;

fn main() -> ExitCode {
    let found = broker::find(&|progress| {
        // Nobody who reads it is no reason to fail.
        let _ = writeln!(stderr(), "{progress}");
    });
    let said = match &found {
        Ok(binary) => writeln!(stdout(), "{}", binary.path.display()),
        Err(error) => writeln!(stderr(), "find-nats-server: {error}"),
    };
    if found.is_ok() && said.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
