//! Entry point: which figure, and how long to measure it. The figures are in the library.

use bench::Args;
use clap::Parser as _;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    bench::run(&Args::parse()).await
}
