//! Entry point: flags, telemetry, signals. The service itself is `products::run`.

use std::process::ExitCode;

use headwater::{http, supervisor, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let config: products::Config = headwater::parse();
    let telemetry = telemetry::init(products::NAME, &config.service.telemetry)?;
    let listeners = http::bind(&config.service.http).await;
    let run = async { products::run(config, listeners?, supervisor::stop_on_signal()).await };
    Ok(telemetry.end(run.await))
}
