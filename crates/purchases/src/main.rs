//! Entry point: flags, telemetry, signals. The service itself is `purchases::run`.

use clap::Parser as _;
use headwater::{http, supervisor, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let config = purchases::Config::parse();
    let _telemetry = telemetry::init(config.style.service(), &config.service.telemetry)?;
    let listener = http::bind(&config.service.http).await?;
    purchases::run(config, listener, supervisor::stop_on_signal()).await
}
