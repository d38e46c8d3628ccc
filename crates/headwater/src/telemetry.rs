//! Logs, metrics and traces.

mod list;
mod otlp;
mod process;
pub(crate) mod sample;
pub mod trace;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use anyhow::{Context as _, anyhow};
use metrics::Gauge;
use metrics_exporter_prometheus::PrometheusHandle;
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
    /// Whether and where traces are sent.
    #[command(flatten)]
    pub traces: trace::Config,
}

/// What runs as long as the process does; dropped at its end, it sends the spans that wait.
#[derive(Debug)]
pub struct Telemetry {
    _traces: Option<otlp::Sending>,
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

/// Starts logging to standard error, collecting metrics, and sending traces where there is an
/// endpoint, once a process: of `service`.
///
/// # Errors
/// The filter or the endpoint is wrong, or logging was started before.
pub fn init(service: &str, config: &Config) -> anyhow::Result<Telemetry> {
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
    Ok(Telemetry {
        _traces: otlp::start(service, &config.traces)?,
    })
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn one_more(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// The metrics of this process. The recorder is one a process, as the `metrics` crate wants it;
/// every metric names its service, so that several services in one process (tests) stay apart.
pub(crate) fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let handle = list::builder()
            .install_recorder()
            .expect("nothing else in the process installs a recorder");
        list::describe();
        handle
    })
}
