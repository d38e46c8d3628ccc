//! Entry point: signals, flags, telemetry. The service itself is `users::run`.

use std::process::ExitCode;

use headwater::{http, supervisor, telemetry};

fn main() -> ExitCode {
    supervisor::on_threads(async |stop| {
        let users::Config { service: config } = headwater::parse();
        let telemetry = telemetry::init(users::NAME, &config.telemetry);
        let listeners = http::bind(&config.http).await;
        let run = async { users::run(config, listeners?, stop).await };
        telemetry.end(run.await)
    })
}
