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
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::clock::Clock;
use crate::journal::{self, Journal};
use crate::{lines, list, otlp, process};

pub use crate::lines::{flush, push};

/// How to log.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Telemetry")]
pub struct Config {
    /// What to log, as in `info,headwater=debug`; what the NATS client says of the connection is
    /// said by `headwater` as well. At `debug`, `sea_orm` logs every statement with its values;
    /// personal data is encrypted in them
    #[arg(long = "log", env = "RUST_LOG", default_value = "info,async_nats=off")]
    pub filter: String,
    /// File that says what to log, in place of `--log`; read anew on SIGHUP. Lines that begin
    /// with `#` are comments
    #[arg(
        long = "log-filter-file",
        env = "HEADWATER_LOG_FILTER_FILE",
        value_name = "FILE"
    )]
    pub filter_file: Option<PathBuf>,
    /// How to log; `auto` is pretty on a terminal, to the journal where systemd connects it to
    /// standard error, and JSON otherwise
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

/// What runs as long as the process does. At its [`end`](Self::end) it sends the spans and writes
/// the log lines that wait, as far as that takes a moment.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<otlp::Sending>,
}

impl Telemetry {
    /// Logs why the service ended, if it was not told to; gives the exit code of the process.
    ///
    /// An error that `main` returns would be written to standard error directly, which takes for
    /// ever where nobody reads it.
    pub fn end(self, ended: anyhow::Result<()>) -> ExitCode {
        let code = match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if error.is::<crate::supervisor::Stopped>() => ExitCode::SUCCESS,
            Err(error) => {
                last_words("the service ended", &crate::causes(&error));
                ExitCode::FAILURE
            }
        };
        drop(self);
        code
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        drop(self.traces.take());
        flush();
    }
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Format {
    /// Pretty on a terminal, to systemd's journal where that is asked for, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
    /// To systemd's journal, with a field for each value: `journalctl PROJECTION=purchases`.
    Journald,
}

/// Starts logging to standard error or the journal, collecting metrics, and sending traces where
/// there is an endpoint, once a process: of `service`. Where the filter or the endpoint is wrong,
/// it says so and ends the process.
pub fn init(service: &str, config: &Config) -> Telemetry {
    try_init(service, config).unwrap_or_else(|error| {
        fail(
            config.format,
            "the service ended",
            &[format!("{error:#}")],
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
        .with(log)
        .try_init();
    started.map_err(|error| anyhow!(error).context("start logging"))?;
    log_panics();
    // Nobody else sets it: logging has just been started for the first time.
    let _ = FILTER.set(handle);
    for warning in std::mem::take(&mut *warnings()) {
        tracing::warn!("{warning}");
    }
    Ok(())
}

/// Logs a warning about the settings, which are read before the log is started.
pub fn warn_when_started(warning: String) {
    warnings().push(warning);
}

fn warnings() -> MutexGuard<'static, Vec<String>> {
    static WARNINGS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    WARNINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether [`init`] can follow the settings.
pub fn check(config: &Config) -> anyhow::Result<()> {
    filter(config)?;
    config.traces.check()
}

/// Logs what keeps the service from starting, in the way in which it was to log, and ends the
/// process with `code`: whoever looks for errors in the journal, or reads JSON, finds these, too.
pub fn fail(format: Format, what: &str, errors: &[String], code: i32) -> ! {
    // Fails where it was started before, which does as well.
    let started = start_log(EnvFilter::new("info"), format);
    for error in errors {
        if started.is_ok() || FILTER.get().is_some() {
            last_words(what, error);
        } else {
            // There is no journal: nothing is left to be tried when this fails.
            let _ = writeln!(std::io::stderr(), "{what}: {error}");
        }
    }
    flush();
    std::process::exit(code)
}

/// Logs an error that ends the process.
///
/// The journal finds out which unit an entry is of by looking at the process, which may be gone by
/// then: `journalctl -u` would not show the one line that matters. Of what comes by way of standard
/// error it knows. `<3>` is `err`.
fn last_words(what: &str, error: &str) {
    if IS_JOURNALD.get().is_some() && is_journal() {
        let line = format!("{what} error={error}").replace('\n', " ");
        push(format!("{STDERR}3>{line}\n").as_bytes());
    } else {
        tracing::error!(error, "{what}");
    }
}

/// Set where the log goes to the journal.
static IS_JOURNALD: OnceLock<()> = OnceLock::new();

/// How a line begins that goes to standard error also where the others are entries of the journal,
/// which begin with the name of a field.
const STDERR: &str = "<";

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Counted {
    /// One more from now on.
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

/// The filter of this process, like the subscriber that it belongs to.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

impl Format {
    /// The same, decided.
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

/// Where the log goes, and how its lines look.
fn log<S>(format: Format) -> std::io::Result<Box<dyn Layer<S> + Send + Sync>>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let format = format.here();
    // Its own descriptor: nobody else waits for the thread that writes to it.
    let mut stderr = File::from(std::io::stderr().as_fd().try_clone_to_owned()?);
    if matches!(format, Format::Journald) {
        let socket = journal::Socket::open()?;
        lines::start(move |entry| {
            if entry.starts_with(STDERR.as_bytes()) {
                return stderr.write_all(entry);
            }
            socket.send(entry)
        })?;
        // Logging is started once.
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

/// Panics are logged, like everything else: what the standard library writes of them goes to
/// standard error directly.
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

/// Whether standard error is the journal's: systemd says which file that is.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|own| named == format!("{}:{}", own.st_dev, own.st_ino))
}

/// Takes over what the filter's file says by now, if there is one; whether it is something else.
///
/// # Errors
/// The file cannot be read, or is no filter: the old one stays.
pub fn renew_filter(config: &Config) -> anyhow::Result<bool> {
    let (Some(handle), Some(_)) = (FILTER.get(), &config.filter_file) else {
        return Ok(false);
    };
    let filter = filter(config)?;
    let said = filter.to_string();
    let before = handle.with_current(EnvFilter::to_string)?;
    handle.reload(filter)?;
    Ok(before != said)
}

fn filter(config: &Config) -> anyhow::Result<EnvFilter> {
    match &config.filter_file {
        Some(path) => {
            read_filter(path).with_context(|| format!("read the log filter in {}", path.display()))
        }
        None => EnvFilter::try_new(&config.filter)
            .with_context(|| format!("read the log filter `{}`", config.filter)),
    }
}

fn read_filter(path: &Path) -> anyhow::Result<EnvFilter> {
    let text = std::fs::read_to_string(path)?;
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    ensure!(!lines.is_empty(), "it says nothing; `info` is a filter");
    Ok(EnvFilter::try_new(lines.join(","))?)
}

/// The metrics of this process. The recorder is one a process, as the `metrics` crate wants it;
/// every metric names its service, so that several services in one process (tests) stay apart.
pub fn metrics_handle() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let handle = list::builder()
            .install_recorder()
            .expect("nothing else in the process installs a recorder");
        list::describe();
        process::note_start(&Clock::system());
        handle
    })
}
