//! One service: a child process.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use broker::{Error, Log, Tail};
use tokio::time::{sleep, timeout};

use crate::screen::Screen;
use crate::service::Service;

/// How long a service may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How often we look whether it has stopped.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A service's process.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) service: Service,
    pub(crate) tail: Tail,
    process: broker::Child,
}

impl Child {
    /// Starts `command`.
    pub(crate) fn spawn(
        service: Service,
        mut command: Command,
        screen: Screen,
    ) -> Result<Self, Error> {
        command.stdin(Stdio::null());
        // As units and images have it: what a large answer took goes back to the system at once.
        command.env("MALLOC_MMAP_THRESHOLD_", "131072");
        if !screen.colours {
            // They see a pipe, and ask for nothing but this variable.
            command.env("NO_COLOR", "1");
        }
        let tail = Tail::default();
        let log = Log::Lines(Arc::new(move |line| screen.log(service, line)));
        let process = broker::Child::spawn(service.name(), command, &log, &tail)?;
        Ok(Self {
            service,
            tail,
            process,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, if it has; all that it has logged has been read then.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.process.wait(Duration::ZERO)
    }

    /// Stops it as an operator would, and kills it if that takes too long; one that has ended is
    /// left alone.
    pub(crate) async fn stop(&mut self, screen: Screen) -> Result<(), Error> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        // It may have been stopped where it was, as the summary invites people to do.
        self.process.terminate()?;
        let name = self.service.name();
        if let Ok(status) = timeout(STOP_WITHIN, self.ended()).await {
            let status = status?;
            if !status.success() {
                screen.say(&format!("{name} ended with {status}"));
            }
        } else {
            screen.say(&format!(
                "{name} did not stop within {STOP_WITHIN:?}: killed"
            ));
            self.process.kill()?;
        }
        Ok(())
    }

    async fn ended(&mut self) -> Result<ExitStatus, Error> {
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}
