//! One service: a child process that cannot get lost.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use broker::Watchdog;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child as Process, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::log::{self, Tail};
use crate::screen::Screen;
use crate::service::Service;

/// How long a service may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long the log of a service that has ended may take to be read to its end.
const LOG_WITHIN: Duration = Duration::from_secs(1);

/// A service's process, in a process group of its own, which no Ctrl-C reaches; killed when
/// dropped, and by its watchdog when we are killed ourselves.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) service: Service,
    pub(crate) pid: u32,
    pub(crate) tail: Tail,
    process: Process,
    watchdog: Watchdog,
    log_read: oneshot::Receiver<()>,
}

impl Child {
    /// Starts `program`.
    pub(crate) fn spawn(
        service: Service,
        program: &Path,
        arguments: impl IntoIterator<Item = OsString>,
        screen: Screen,
    ) -> anyhow::Result<Self> {
        let failed = || format!("start {}", program.display());
        let (reader, writer) = io::pipe().with_context(failed)?;
        let (tail, log_read) = log::follow(service, reader, screen).with_context(failed)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone().with_context(failed)?)
            .stderr(writer)
            .process_group(0)
            // As units and images have it: what a large answer took goes back to the system at once.
            .env("MALLOC_MMAP_THRESHOLD_", "131072")
            .kill_on_drop(true);
        if !screen.colours {
            // They see a pipe, and ask for nothing but this variable.
            command.env("NO_COLOR", "1");
        }
        let process = command.spawn().with_context(failed)?;
        let pid = process.id().expect("nobody has waited for it yet");
        let watchdog = Watchdog::over(pid).context("start a watchdog")?;
        Ok(Self {
            service,
            pid,
            tail,
            process,
            watchdog,
            log_read,
        })
    }

    /// How it ended, if it has.
    pub(crate) fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.process.try_wait()?;
        if status.is_some() {
            self.watchdog.stand_down();
        }
        Ok(status)
    }

    /// Waits until all that it has logged has been read.
    pub(crate) async fn log_read(&mut self) {
        let _in_time = timeout(LOG_WITHIN, &mut self.log_read).await;
    }

    /// Stops it as an operator would, and kills it if that takes too long; one that has ended is
    /// left alone.
    pub(crate) async fn stop(&mut self, screen: Screen) -> io::Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM);
        // It may have been stopped where it was, as the summary invites people to do.
        self.signal(Signal::CONT);
        if let Ok(status) = timeout(STOP_WITHIN, self.process.wait()).await {
            let status = status?;
            if !status.success() {
                screen.say(&format!("{} ended with {status}", self.service.name()));
            }
        } else {
            let name = self.service.name();
            screen.say(&format!(
                "{name} did not stop within {STOP_WITHIN:?}: killed"
            ));
            self.process.kill().await?;
        }
        self.watchdog.stand_down();
        self.log_read().await;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        // `id` is there as long as it has not been waited for.
        let pid = self
            .process
            .id()
            .and_then(|id| Pid::from_raw(id.try_into().ok()?));
        // It may have ended just now.
        let _gone = pid.map(|pid| kill_process(pid, signal));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _gone = self.process.start_kill();
        self.watchdog.stand_down();
    }
}
