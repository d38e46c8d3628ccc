//! Helper programs of the end-to-end tests, and their long forms: `e2e torture`, `e2e recovery`.

mod public_api;
mod recovery;
mod rival;
mod screenshots;
mod torture;

use anyhow::Context as _;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(name = "e2e")]
enum Tool {
    Torture(torture::Args),
    Recovery(recovery::Args),
    /// Run another relay for orders, on a database that another process writes to
    Rival(Box<orders::Config>),
    /// Compare the public API of each published crate with docs/api, and update that
    PublicApi,
    /// Take the screenshots of the README
    Screenshots,
    /// Remove from Docker what a test process left, when standard input ends
    Reap {
        /// The test process
        run: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Tool::parse() {
        Tool::Torture(args) => torture::run(args).await,
        Tool::Recovery(args) => recovery::run(args).await,
        Tool::Rival(config) => rival::run(config.service).await,
        Tool::PublicApi => public_api::run(),
        Tool::Screenshots => screenshots::run().await,
        Tool::Reap { run } => e2e::docker::reap(&run).await.context("clean up in Docker"),
    }
}
