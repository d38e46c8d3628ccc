//! Entry point: flags, telemetry, signals. The service itself is `purchases::run`.

use std::process::ExitCode;

use headwater::{http, supervisor, telemetry};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let config: purchases::Config = headwater::parse();
    let telemetry = telemetry::init(config.style.service(), &config.service.telemetry)?;
    let listeners = http::bind(&config.service.http).await;
    let run = async { purchases::run(config, listeners?, supervisor::stop_on_signal()).await };
    Ok(telemetry.end(run.await))
}
