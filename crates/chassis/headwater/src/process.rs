//! The process around a service: settings, telemetry, signals, listeners.

use std::process::ExitCode;

use headwater_http::{self as http, About, Listeners};
use headwater_telemetry::{self as telemetry, BoxError, supervisor};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::error::Result;

/// What a service gets from the process that it runs in.
#[derive(Debug)]
pub struct Process {
    /// The sockets that it listens on.
    pub listeners: Listeners,
    /// Cancelled when the service has to stop.
    pub stop: CancellationToken,
}

impl Process {
    /// Free ports of the loopback address, for tests.
    ///
    /// # Errors
    /// There are none.
    pub async fn on_free_ports(stop: CancellationToken) -> std::io::Result<Self> {
        let listeners = Listeners::on_free_ports().await?;
        Ok(Self { listeners, stop })
    }
}

/// The whole `main` of a service: reads the settings `C`, starts logs, metrics and traces, binds
/// the listeners, and calls `run`, until SIGTERM or SIGINT stops it.
///
/// `C` is a [`Config`](crate::Config) or, if the service has settings of its own, a struct that
/// derives `clap::Args` and has a `Config` with `#[command(flatten)]`. `run` returns a
/// [`headwater::Result`](crate::Result), or errors of any other type: they are logged with their
/// causes.
///
/// ```no_run
/// use headwater::prelude::*;
///
/// const ABOUT: About = About {
///     name: "reviews",
///     description: "Reviews of products.",
///     version: env!("CARGO_PKG_VERSION"),
///     port: 8086,
/// };
///
/// async fn run(config: Config, process: Process) -> headwater::Result {
///     Service::start(ABOUT, &[], config, process).await?.serve(OpenApiRouter::new()).await
/// }
///
/// fn main() -> std::process::ExitCode {
///     headwater::main(ABOUT, run)
/// }
/// ```
pub fn main<C: clap::Args, E: Into<BoxError>>(
    about: About,
    run: impl AsyncFnOnce(C, Process) -> Result<(), E>,
) -> ExitCode {
    main_as(about, |_| Ok(about.name), run)
}

/// [`main`] of a service whose name depends on its settings, or that has settings of its own to
/// check: `name` returns the name under which it runs, or what is wrong. It is also called by
/// `--check`, so it opens neither a database nor a port.
pub fn main_as<C: clap::Args, E: Into<BoxError>>(
    about: About,
    name: impl FnOnce(&C) -> Result<&'static str>,
    run: impl AsyncFnOnce(C, Process) -> Result<(), E>,
) -> ExitCode {
    supervisor::on_threads(async |stop| {
        let (settings, config, name) = config::parse::<C>(&about, name);
        let telemetry = telemetry::init(name, &config.telemetry);
        let run = async {
            let listeners = http::bind(&config.http).await?;
            let process = Process { listeners, stop };
            run(settings, process).await.map_err(Into::<BoxError>::into)
        };
        telemetry.end(Box::pin(run).await)
    })
}
