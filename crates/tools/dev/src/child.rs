//! A service as a child process.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use broker::{Error, Log, Tail};
use tokio::time::{Instant, sleep};

use crate::control::State;
use crate::screen::Screen;
use crate::service::Service;

/// How long a service may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How often the process is checked while it stops.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How a service is started, also the next time.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// A service's process.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) service: Service,
    pub(crate) tail: Tail,
    recipe: Recipe,
    process: broker::Child,
    wish: Wish,
}

/// What a process is to do.
#[derive(Clone, Copy, Debug)]
enum Wish {
    /// If it ends, that is a failure.
    Run,
    /// It is killed at this time.
    StopUntil(Instant),
    End,
}

impl Child {
    /// Starts a service.
    pub(crate) fn spawn(service: Service, recipe: Recipe, screen: Screen) -> Result<Self, Error> {
        let tail = Tail::default();
        Ok(Self {
            service,
            process: launch(service, &recipe, &tail, screen)?,
            tail,
            recipe,
            wish: Wish::Run,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its exit status, if it has ended; its whole log has been read then.
    fn exited(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.process.wait(Duration::ZERO)
    }

    /// Its state. The error is its exit status if it has ended by itself. A process that does not
    /// stop in time is killed.
    pub(crate) fn look(&mut self, screen: Screen) -> Result<Result<State, ExitStatus>, Error> {
        let name = self.service.name();
        let status = self.exited()?;
        Ok(match (self.wish, status) {
            (Wish::Run, Some(status)) => Err(status),
            (Wish::Run, None) if is_paused(self.pid()) => Ok(State::Paused),
            (Wish::Run, None) => Ok(State::Running),
            (Wish::StopUntil(_), Some(status)) => {
                if !status.success() {
                    screen.say(&format!("{name} ended with {status}"));
                }
                self.wish = Wish::End;
                Ok(State::Stopped)
            }
            (Wish::StopUntil(end), None) if Instant::now() < end => Ok(State::Stopping),
            (Wish::StopUntil(_), None) => {
                screen.say(&format!(
                    "{name} did not stop within {STOP_WITHIN:?}: killed"
                ));
                self.kill()?;
                Ok(State::Stopped)
            }
            (Wish::End, _) => Ok(State::Stopped),
        })
    }

    /// Starts it again, after it has ended.
    pub(crate) fn restart(&mut self, screen: Screen) -> Result<(), Error> {
        self.process = launch(self.service, &self.recipe, &self.tail, screen)?;
        self.wish = Wish::Run;
        Ok(())
    }

    /// Asks it to stop, as an operator would. It may be paused.
    pub(crate) fn terminate(&mut self) -> Result<(), Error> {
        self.wish = Wish::StopUntil(Instant::now() + STOP_WITHIN);
        self.process.terminate()
    }

    pub(crate) fn pause(&self) -> Result<(), Error> {
        self.process.pause()
    }

    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.process.resume()
    }

    pub(crate) fn kill(&mut self) -> Result<(), Error> {
        self.wish = Wish::End;
        self.process.kill().map(|_| ())
    }

    /// Stops it, and kills it if that takes too long. Does nothing if it has ended.
    pub(crate) async fn stop(&mut self, screen: Screen) -> Result<(), Error> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        self.terminate()?;
        while self.look(screen)? == Ok(State::Stopping) {
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

fn launch(
    service: Service,
    recipe: &Recipe,
    tail: &Tail,
    screen: Screen,
) -> Result<broker::Child, Error> {
    let mut command = Command::new(&recipe.program);
    command.args(&recipe.arguments).stdin(Stdio::null());
    // As in the units and images: the memory of a large answer is returned to the system at
    // once.
    command.env("MALLOC_MMAP_THRESHOLD_", "131072");
    if !screen.colours {
        // Services see a pipe, so this variable alone decides.
        command.env("NO_COLOR", "1");
    }
    let log = Log::Lines(Arc::new(move |line| screen.log(service, line)));
    broker::Child::spawn(service.name(), command, &log, tail)
}

/// Whether a process is stopped by SIGSTOP, which need not have come from us.
pub(crate) fn is_paused(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // `pid (name) state …`
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('T'))
}
