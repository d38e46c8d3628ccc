//! Stop signals for process 1, as in a container: it ignores signals that it does not handle. They
//! end every other process by default.

use std::future::pending;

use terminal::Exit;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::command::{Cli, run};

/// The stop signals, if this is process 1.
#[derive(Debug)]
pub struct Signals(Option<(Signal, Signal)>);

impl Signals {
    /// Call this first: earlier signals are lost.
    pub fn listen() -> Self {
        let is_first = std::process::id() == 1;
        let both = || {
            let interrupt = signal(SignalKind::interrupt()).ok()?;
            Some((interrupt, signal(SignalKind::terminate()).ok()?))
        };
        Self(is_first.then(both).flatten())
    }

    /// Runs a command until it ends or a stop signal arrives.
    pub async fn obeyed_by(self, cli: Cli) -> Exit {
        tokio::select! {
            exit = run(cli) => exit,
            () = self.come() => Exit::Interrupted,
        }
    }

    async fn come(self) {
        let Some((mut interrupt, mut terminate)) = self.0 else {
            return pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
