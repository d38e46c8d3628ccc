//! Entry point: flags, telemetry, signals. The service itself is `users::run`.

use anyhow::Context as _;
use clap::Parser as _;
use headwater::{supervisor, telemetry};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let users::Config { service: config } = users::Config::parse();
    telemetry::init(&config.telemetry)?;
    let listener = TcpListener::bind(config.http.listen)
        .await
        .context("bind")?;
    users::run(config, listener, supervisor::stop_on_signal()).await
}
