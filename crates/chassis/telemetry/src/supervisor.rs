//! The tasks of a service: the first to end stops all of them.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::lines;

/// Runs the tasks of a service until it is told to stop, or one of them ends.
///
/// A task that ends by itself, well or badly, has left the service without a part: better that
/// all of it stops and is started again than that half of it lives on unseen.
#[derive(Debug)]
pub struct Supervisor {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    /// The tasks that have not ended.
    names: BTreeMap<Id, &'static str>,
}

/// It was told to stop before it had started.
#[derive(Debug, thiserror::Error)]
#[error("stopped while it waited for room on the disk")]
pub struct Stopped;

impl Supervisor {
    /// A supervisor whose tasks stop with `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            tasks: JoinSet::new(),
            names: BTreeMap::new(),
        }
    }

    /// Starts a task. It must end soon after the token that it is given is cancelled.
    pub fn spawn<F, T>(&mut self, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let task = self.tasks.spawn(task(self.stop.clone()));
        self.names.insert(task.id(), name);
    }

    /// Waits for the stop or the first task to end, then for the others, `drain` at most.
    ///
    /// # Errors
    /// The first task that ended without having been told to, or that took longer than `drain`.
    pub async fn join(mut self, drain: Duration) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        tokio::select! {
            () = self.stop.cancelled() => {}
            Some(ended) = self.tasks.join_next_with_id() => {
                let (name, result) = self.note_ended(ended);
                outcome = result.with_context(|| format!("run {name}"));
                if outcome.is_ok() && !self.stop.is_cancelled() {
                    outcome = Err(anyhow!("{name} ended by itself"));
                }
            }
        }
        self.stop.cancel();
        let drained = tokio::time::timeout(drain, self.drain()).await;
        outcome?;
        drained.unwrap_or_else(|_| {
            let left: Vec<_> = self.names.into_values().collect();
            Err(anyhow!("{} did not end within {drain:?}", left.join(", ")))
        })
    }

    async fn drain(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let (name, result) = self.note_ended(ended);
            outcome = outcome.and(result.with_context(|| format!("stop {name}")));
        }
        outcome
    }

    /// Which task ended, and how; a panic is an error.
    fn note_ended(
        &mut self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
    ) -> (&'static str, anyhow::Result<()>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(error.into())),
        };
        let name = self.names.remove(&id).expect("it was given a name");
        (name, result)
    }
}

/// Runs a service [until it is told to stop](stop_on_signal), on a thread for each core and one
/// more: while the others are busy with what clients asked for, that one finds out whose turn is
/// next.
///
/// # Panics
/// When the system has no threads.
pub fn on_threads<T>(service: impl AsyncFnOnce(CancellationToken) -> T) -> T {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores + 1)
        .enable_all()
        .build()
        .expect("start the runtime's threads")
        .block_on(async { service(stop_on_signal()).await })
}

/// A token that is cancelled by SIGTERM or SIGINT. A second signal ends the process at once.
///
/// SIGHUP does not end it from now on; what it means is the service's matter.
///
/// The first thing that a process does: process 1, as in a container, ignores a signal that nothing
/// handles yet, and would only end when it is killed.
///
/// # Panics
/// When the process may not listen for signals, or outside a runtime.
#[expect(
    clippy::disallowed_methods,
    reason = "listens for as long as the process lives, before there is a supervisor"
)]
pub fn stop_on_signal() -> CancellationToken {
    use tokio::signal::unix::{SignalKind, signal};

    let stop = CancellationToken::new();
    let told = stop.clone();
    let mut terminate = signal(SignalKind::terminate()).expect("listen for SIGTERM");
    // Dropped at once: what is installed with it stays.
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
                told.cancel();
            }
        }
        tracing::warn!("stopped at once");
        lines::flush();
        std::process::exit(1);
    });
    stop
}
