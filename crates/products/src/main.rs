//! Entry point: flags, telemetry, signals. The service itself is `products::run`.

use std::process::ExitCode;

use headwater::{http, supervisor, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let products::Config { service: config } = headwater::parse();
    let telemetry = telemetry::init(products::NAME, &config.telemetry)?;
    let listeners = http::bind(&config.http).await;
    let run = async { products::run(config, listeners?, supervisor::stop_on_signal()).await };
    Ok(telemetry.end(run.await))
}
