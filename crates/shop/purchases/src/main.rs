//! Entry point: signals, flags, telemetry. The service itself is `purchases::run`.

use std::process::ExitCode;

use headwater::{http, supervisor, telemetry};

fn main() -> ExitCode {
    supervisor::on_threads(async |stop| {
        let config: purchases::Config = headwater::parse();
        let telemetry = telemetry::init(config.style.service(), &config.service.telemetry);
        let listeners = http::bind(&config.service.http).await;
        let run = async { purchases::run(config, listeners?, stop).await };
        telemetry.end(Box::pin(run).await)
    })
}
