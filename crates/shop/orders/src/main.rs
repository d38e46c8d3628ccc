//! Entry point: signals, flags, telemetry. The service itself is `orders::run`.

use std::process::ExitCode;

use headwater::{http, supervisor, telemetry};

fn main() -> ExitCode {
    supervisor::on_threads(async |stop| {
        let orders::Config { service: config } = headwater::parse();
        let telemetry = telemetry::init(orders::NAME, &config.telemetry);
        let listeners = http::bind(&config.http).await;
        let run = async { orders::run(config, listeners?, stop).await };
        telemetry.end(run.await)
    })
}
