//! Entry point: which figures, in which form. The figures are in the library.

use std::process::ExitCode;

use bench::Args;
use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    Box::pin(bench::run(Args::parse())).await
}
