//! Logs and metrics.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::{Context as _, anyhow};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// How to log.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Telemetry")]
pub struct Config {
    /// What to log, as in `info,headwater=debug`; what the NATS client says of the connection is
    /// said by `headwater` as well. At `debug`, `sea_orm` logs every statement with
    /// its values, personal data among them
    #[arg(long = "log", env = "RUST_LOG", default_value = "info,async_nats=off")]
    pub filter: String,
    /// How to log; `auto` is pretty on a terminal and JSON otherwise
    #[arg(
        long = "log-format",
        env = "HEADWATER_LOG_FORMAT",
        value_enum,
        default_value = "auto"
    )]
    pub format: Format,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Format {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error and collecting metrics, once a process.
///
/// # Errors
/// The filter is wrong, or logging was started before.
pub fn init(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.filter)
        .with_context(|| format!("read the log filter `{}`", config.filter))?;
    let pretty = match config.format {
        Format::Auto => std::io::stderr().is_terminal(),
        Format::Pretty => true,
        Format::Json => false,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that nobody reads any more (a closed pipe) must not stop the service.
        .log_internal_errors(false);
    let started = if pretty {
        subscriber.compact().try_init()
    } else {
        subscriber.json().flatten_event(true).try_init()
    };
    started.map_err(|error| anyhow!(error).context("start logging"))?;
    metrics_handle();
    Ok(())
}

/// The metrics of this process. The recorder is one a process, as the `metrics` crate wants it;
/// every metric names its service, so that several services in one process (tests) stay apart.
pub(crate) fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets(&[
                0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
            ])
            .expect("the buckets are not empty")
            .install_recorder()
            .expect("nothing else in the process installs a recorder")
    })
}
