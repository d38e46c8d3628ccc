//! The tasks of a service. If one ends, all are stopped.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::error::{BoxError, Error};
use crate::lines;

pub use crate::error::Stopped;

/// Runs the tasks of a service until it is stopped or one of them ends.
///
/// If a task ends on its own, even without an error, the service lacks a component. Stopping and
/// restarting the whole service is better than running without it unnoticed.
#[derive(Debug)]
pub struct Supervisor {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), BoxError>>,
    /// The tasks that have not ended.
    names: BTreeMap<Id, &'static str>,
}

impl Supervisor {
    /// A supervisor whose tasks stop with `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            tasks: JoinSet::new(),
            names: BTreeMap::new(),
        }
    }

    /// Starts a task, which may return errors of any type. It must end soon after its token is
    /// cancelled.
    pub fn spawn<F, T, E>(&mut self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let task = task(self.stop.clone());
        let task = self.tasks.spawn(async { task.await.map_err(Into::into) });
        self.names.insert(task.id(), name);
    }

    /// Waits for the stop or for the first task to end, then at most `drain` for the others.
    ///
    /// # Errors
    /// A task ended before the stop or with an error, or took longer than `drain`.
    pub async fn join(mut self, drain: Duration) -> Result<(), Error> {
        let mut outcome = Ok(());
        tokio::select! {
            () = self.stop.cancelled() => {}
            Some(ended) = self.tasks.join_next_with_id() => {
                let (task, result) = self.note_ended(ended);
                outcome = result.map_err(|error| Error::TaskFailed { task, error });
                if outcome.is_ok() && !self.stop.is_cancelled() {
                    outcome = Err(Error::TaskEnded { task });
                }
            }
        }
        self.stop.cancel();
        let drained = tokio::time::timeout(drain, self.drain()).await;
        outcome?;
        drained.unwrap_or_else(|_| {
            let tasks = self.names.into_values().collect();
            Err(Error::StillRunning { tasks, drain })
        })
    }

    async fn drain(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let (task, result) = self.note_ended(ended);
            outcome = outcome.and(result.map_err(|error| Error::StopFailed { task, error }));
        }
        outcome
    }

    /// The name and the result of a task that ended; a panic is an error.
    fn note_ended(
        &mut self,
        ended: Result<(Id, Result<(), BoxError>), JoinError>,
    ) -> (&'static str, Result<(), BoxError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(error.into())),
        };
        let name = self.names.remove(&id).expect("every task has a name");
        (name, result)
    }
}

/// Runs a service [until a signal stops it](stop_on_signal), with one thread per core and one more.
/// While the others work on requests, the extra thread decides whose turn is next.
pub fn on_threads<T>(service: impl AsyncFnOnce(CancellationToken) -> T) -> T {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores + 1)
        .enable_all()
        .build()
        .expect("start the runtime's threads");
    let ended = runtime.block_on(async { service(stop_on_signal()).await });
    // A thread that still looks up a name holds nothing up.
    runtime.shutdown_background();
    ended
}

/// A token that is cancelled by SIGTERM or SIGINT. A second signal ends the process at once.
///
/// From now on, SIGHUP does not end the process; the service decides what it means.
///
/// Call this first: process 1, as in a container, ignores signals without a handler and could only
/// be killed.
///
/// # Panics
/// Outside a runtime.
#[expect(
    clippy::disallowed_methods,
    reason = "listens until the process ends, starting before there is a supervisor"
)]
pub fn stop_on_signal() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};

    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let mut terminate = signal(SignalKind::terminate()).expect("listen for SIGTERM");
    // Dropped at once: the installed handler stays.
    drop(signal(SignalKind::hangup()).expect("listen for SIGHUP"));
    let mut interrupt = signal(SignalKind::interrupt()).expect("listen for SIGINT");
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                tracing::info!("stopping; a second signal stops at once");
                stopping.cancel();
            }
        }
        tracing::warn!("stopped at once by a second signal");
        lines::flush();
        std::process::exit(1);
    });
    stop
}
