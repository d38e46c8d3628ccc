//! Entry point: flags, telemetry, signals. The service itself is `users::run`.

use clap::Parser as _;
use headwater::{http, supervisor, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let users::Config { service: config } = users::Config::parse();
    let _telemetry = telemetry::init(users::NAME, &config.telemetry)?;
    let listener = http::bind(&config.http).await?;
    users::run(config, listener, supervisor::stop_on_signal()).await
}
