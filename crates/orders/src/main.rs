//! Entry point: flags, telemetry, signals. The service itself is `orders::run`.

use clap::Parser as _;
use headwater::{http, supervisor, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let orders::Config { service: config } = orders::Config::parse();
    let _telemetry = telemetry::init(orders::NAME, &config.telemetry)?;
    let listener = http::bind(&config.http).await?;
    orders::run(config, listener, supervisor::stop_on_signal()).await
}
