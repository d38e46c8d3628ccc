//! Entry point: signals, flags, telemetry. The service itself is `products::run`.

use std::process::ExitCode;

use headwater::{http, supervisor, telemetry};

fn main() -> ExitCode {
    supervisor::on_threads(async |stop| {
        let config: products::Config = headwater::parse();
        let telemetry = telemetry::init(products::NAME, &config.service.telemetry);
        let listeners = http::bind(&config.service.http).await;
        let run = async { products::run(config, listeners?, stop).await };
        telemetry.end(run.await)
    })
}
