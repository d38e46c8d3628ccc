//! Entry point: flags and the runtime. The command itself is `dev::run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads left");
    let exit = runtime.block_on(dev::main(dev::Args::read()));
    // Not waited for: pip may still be at work on a thread that cannot be cancelled.
    runtime.shutdown_background();
    exit
}
