//! Entry point: flags and the runtime. The command itself is `dev::run`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads left");
    let exit = runtime.block_on(dev::main(dev::Args::read()));
    // Do not wait: pip may be running on a thread that cannot be cancelled.
    runtime.shutdown_background();
    exit
}
