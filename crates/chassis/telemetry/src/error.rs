//! Errors of the process around a service.

use std::time::Duration;

/// Any error, with its [causes](crate::causes).
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why telemetry, the sockets of systemd, or the tasks of a service cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The log filter, its file, or the endpoint of traces is invalid or cannot be read: the
    /// operator corrects the setting. At a reload, the old one stays in force.
    #[error(transparent)]
    Setting(BoxError),
    /// systemd passes sockets that a service cannot use: the operator corrects the `.socket` units.
    #[error(transparent)]
    Sockets(BoxError),
    /// A task failed or panicked while the service ran. The service stops; start it again.
    #[error("run {task}")]
    TaskFailed {
        /// The name of the task.
        task: &'static str,
        /// Its error.
        #[source]
        error: BoxError,
    },
    /// A task ended without an error while the service ran, and the service lacks it. The service
    /// stops; start it again.
    #[error("{task} ended unexpectedly")]
    TaskEnded {
        /// The name of the task.
        task: &'static str,
    },
    /// A task failed or panicked while the service stopped.
    #[error("stop {task}")]
    StopFailed {
        /// The name of the task.
        task: &'static str,
        /// Its error.
        #[source]
        error: BoxError,
    },
    /// Tasks were still running when the time to stop was over; they were aborted.
    #[error("{} did not end within {drain:?}", tasks.join(", "))]
    StillRunning {
        /// The names of the tasks.
        tasks: Vec<&'static str>,
        /// The time that they had.
        drain: Duration,
    },
}

/// The service was stopped before it had started. [`Telemetry::end`](crate::Telemetry::end) takes
/// it, also as a cause, for an orderly end.
#[derive(Debug, thiserror::Error)]
#[error("stopped while waiting for disk space")]
pub struct Stopped;
