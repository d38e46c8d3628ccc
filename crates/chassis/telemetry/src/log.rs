//! Logs, metrics and traces.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, anyhow, ensure};
use metrics::Gauge;
use metrics_exporter_prometheus::PrometheusHandle;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::causes::{causes, chain};
use crate::clock::Clock;
use crate::error::{BoxError, Error, Stopped};
use crate::journal::{self, Journal};
use crate::{lines, list, otlp, process};

pub use crate::lines::{flush, push};

/// The configuration of logs and traces.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Telemetry")]
pub struct Config {
    /// Log filter, such as `info,headwater=debug`. `async_nats` is off by default because
    /// `headwater` logs connection events. At `debug`, `sea_orm` logs every statement with its
    /// values, in which personal data is encrypted
    #[arg(long = "log", env = "RUST_LOG", default_value = "info,async_nats=off")]
    pub filter: String,
    /// File with the log filter, instead of `--log`; read again on SIGHUP. Lines that begin with
    /// `#` are comments
    #[arg(
        long = "log-filter-file",
        env = "HEADWATER_LOG_FILTER_FILE",
        value_name = "FILE"
    )]
    pub filter_file: Option<PathBuf>,
    /// Log format. `auto` is pretty on a terminal, the journal if systemd connects standard error
    /// to it, and JSON otherwise
    #[arg(
        long = "log-format",
        env = "HEADWATER_LOG_FORMAT",
        value_enum,
        default_value = "auto"
    )]
    pub format: Format,
    /// Whether and where traces are sent.
    #[command(flatten)]
    pub traces: otlp::Config,
}

/// Telemetry of the running process. At its [`end`](Self::end), or when dropped, it sends the
/// remaining spans and writes the remaining log lines, within a few seconds.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<otlp::Sending>,
}

impl Telemetry {
    /// Logs the error that ended the service, if any; returns the exit code of the process.
    ///
    /// If `main` returned the error, it would be written directly to standard error, which blocks
    /// forever if it is a full pipe without a reader.
    pub fn end(self, ended: Result<(), impl Into<BoxError>>) -> ExitCode {
        let code = match ended.map_err(Into::into) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if is_stopped(&error) => ExitCode::SUCCESS,
            Err(error) => {
                last_words("the service ended", &causes(&*error));
                ExitCode::FAILURE
            }
        };
        drop(self);
        code
    }
}

/// Whether the process was asked to stop before the service had started.
fn is_stopped(error: &BoxError) -> bool {
    chain(&**error).any(<dyn std::error::Error>::is::<Stopped>)
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        drop(self.traces.take());
        flush();
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
#[non_exhaustive]
pub enum Format {
    /// Pretty on a terminal, the journal if standard error is connected to it, JSON otherwise.
    Auto,
    /// Human-readable.
    Pretty,
    /// One JSON object per line.
    Json,
    /// To systemd's journal, with a field per value: `journalctl PROJECTION=purchases`.
    Journald,
}

/// Starts logs, metrics and, if there is an endpoint, traces of `service`. Call once per process.
/// If the filter or the endpoint is invalid, logs the error and ends the process.
pub fn init(service: &str, config: &Config) -> Telemetry {
    try_init(service, config).unwrap_or_else(|error| {
        fail(
            config.format,
            "the service ended",
            &[causes(error.as_ref())],
            1,
        )
    })
}

fn try_init(service: &str, config: &Config) -> anyhow::Result<Telemetry> {
    start_log(filter(config)?, config.format)?;
    metrics_handle();
    Ok(Telemetry {
        traces: otlp::start(service, &config.traces)?,
    })
}

fn start_log(filter: EnvFilter, format: Format) -> anyhow::Result<()> {
    let (filter, handle) = reload::Layer::new(filter);
    let log = log(format).context("log to the journal")?;
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(|metadata| !has_payloads(metadata)))
        .with(log)
        .try_init();
    started.map_err(|error| anyhow!(error).context("start logging"))?;
    log_panics();
    // Logging was just started for the first time, so this is not set yet.
    let _ = FILTER.set(handle);
    for warning in std::mem::take(&mut *warnings()) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Whether an event of the log may hold the payload of a message: an answer with a name, for
/// example. At `trace`, async-nats writes all that it reads and sends; no filter admits that.
fn has_payloads(metadata: &Metadata<'_>) -> bool {
    *metadata.level() == Level::TRACE && metadata.target().starts_with("async_nats")
}

/// Logs a warning about the settings, which are read before the log is started.
pub fn warn_when_started(warning: String) {
    warnings().push(warning);
}

fn warnings() -> MutexGuard<'static, Vec<String>> {
    static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    WARNINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Checks the settings for [`init`].
///
/// # Errors
/// [`Error::Setting`].
pub fn check(config: &Config) -> Result<(), Error> {
    filter(config)?;
    config.traces.check()
}

/// Logs the errors that keep the service from starting, in the configured format, and ends the
/// process with `code`. So these errors are in the journal or in JSON, like all others.
pub fn fail(format: Format, what: &str, errors: &[String], code: i32) -> ! {
    // Fails if logging was started before, which is fine.
    let started = start_log(EnvFilter::new("info"), format);
    for error in errors {
        if started.is_ok() || FILTER.get().is_some() {
            last_words(what, error);
        } else {
            // There is no journal. If this fails, no other output is left.
            let _ = writeln!(std::io::stderr(), "{what}: {error}");
        }
    }
    flush();
    std::process::exit(code)
}

/// Logs an error that ends the process.
///
/// The journal finds the unit of an entry by looking up the process, which may be gone by then, and
/// `journalctl -u` would not show the most important line. For standard error, the journal knows
/// the unit. `<3>` is `err`.
fn last_words(what: &str, error: &str) {
    if IS_JOURNALD.get().is_some() && is_journal() {
        let line = format!("{what} error={error}").replace('\n', " ");
        push(format!("{STDERR}3>{line}\n").as_bytes());
    } else {
        tracing::error!(error, "{what}");
    }
}

/// Set if the log goes to the journal.
static IS_JOURNALD: OnceLock<()> = OnceLock::new();

/// The first character of a line that goes to standard error even if the log goes to the journal.
/// Journal entries begin with the name of a field instead.
const STDERR: &str = "<";

/// Adds one to a gauge until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// Adds one to `gauge`.
    pub fn one_more(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// The filter of this process; global, like its subscriber.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

impl Format {
    /// Resolves `Auto` for this process.
    #[must_use]
    pub fn here(self) -> Self {
        match self {
            Self::Auto if std::io::stderr().is_terminal() => Self::Pretty,
            Self::Auto if is_journal() => Self::Journald,
            Self::Auto => Self::Json,
            format => format,
        }
    }
}

/// The layer that writes the log in `format`.
fn log<S>(format: Format) -> std::io::Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let format = format.here();
    // A separate descriptor, so that no other writer waits for the log thread.
    let mut stderr = File::from(std::io::stderr().as_fd().try_clone_to_owned()?);
    if matches!(format, Format::Journald) {
        let socket = journal::Socket::open()?;
        lines::start(move |entry| {
            if entry.starts_with(STDERR.as_bytes()) {
                return stderr.write_all(entry);
            }
            socket.send(entry)
        })?;
        // Logging is started only once.
        let _ = IS_JOURNALD.set(());
        return Ok(Journal::new()?.boxed());
    }
    lines::start(move |line| stderr.write_all(line))?;
    let layer = fmt::layer()
        .with_writer(|| lines::Writer)
        .log_internal_errors(false);
    Ok(match format {
        Format::Pretty => layer.compact().boxed(),
        _ => layer.json().flatten_event(true).boxed(),
    })
}

/// Logs panics. By default, the standard library writes them directly to standard error.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
        tracing::error!(
            backtrace = backtrace.map(tracing::field::display),
            "{panic}"
        );
    }));
}

/// Whether standard error is connected to the journal: systemd names that file.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|own| named == format!("{}:{}", own.st_dev, own.st_ino))
}

/// Reads the filter file again, if there is one; returns whether the filter has changed.
///
/// # Errors
/// [`Error::Setting`]: the file cannot be read or is not a valid filter. The old filter stays.
pub fn renew_filter(config: &Config) -> Result<bool, Error> {
    let (Some(handle), Some(_)) = (FILTER.get(), &config.filter_file) else {
        return Ok(false);
    };
    let filter = filter(config)?;
    let after = filter.to_string();
    let unchanged = |error: reload::Error| Error::Setting(error.into());
    let before = handle
        .with_current(EnvFilter::to_string)
        .map_err(unchanged)?;
    handle.reload(filter).map_err(unchanged)?;
    Ok(before != after)
}

fn filter(config: &Config) -> Result<EnvFilter, Error> {
    let filter = match &config.filter_file {
        Some(path) => {
            read_filter(path).with_context(|| format!("read the log filter in {}", path.display()))
        }
        None => EnvFilter::try_new(&config.filter)
            .with_context(|| format!("read the log filter `{}`", config.filter)),
    };
    filter.map_err(|error| Error::Setting(error.into()))
}

fn read_filter(path: &Path) -> anyhow::Result<EnvFilter> {
    let text = std::fs::read_to_string(path)?;
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    ensure!(
        !lines.is_empty(),
        "the file has no filter; use for example `info`"
    );
    Ok(EnvFilter::try_new(lines.join(","))?)
}

/// The metrics of this process. The `metrics` crate allows one recorder per process. Metrics of a
/// service are labelled with its name, so that several services in one process (tests) stay apart.
pub fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let handle = list::builder()
            .install_recorder()
            .expect("no other code installs a recorder");
        list::describe();
        process::note_start(&Clock::system());
        handle
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_before_the_start_is_found_below_other_errors() {
        #[derive(Debug, thiserror::Error)]
        #[error("open the database")]
        struct Outer(#[source] Stopped);

        assert!(is_stopped(&Stopped.into()));
        assert!(is_stopped(&Outer(Stopped).into()));
        assert!(!is_stopped(&"stopped while waiting for disk space".into()));
    }
}
