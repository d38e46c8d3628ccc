//! Entry point: flags, telemetry, signals. The service itself is `products::run`.

use clap::Parser as _;
use headwater::{http, supervisor, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let products::Config { service: config } = products::Config::parse();
    let _telemetry = telemetry::init(products::NAME, &config.telemetry)?;
    let listener = http::bind(&config.http).await?;
    products::run(config, listener, supervisor::stop_on_signal()).await
}
