//! A service as a child process.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use broker::{Error, Log, Tail};
use tokio::time::{sleep, timeout};

use crate::screen::Screen;
use crate::service::Service;

/// How long a service may take to stop before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How often the process is checked while it stops.
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
        // As in the units and images: the memory of a large answer is returned to the system at
        // once.
        command.env("MALLOC_MMAP_THRESHOLD_", "131072");
        if !screen.colours {
            // Services see a pipe, so this variable alone decides.
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

    /// Its exit status, if it has ended; its whole log has been read then.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.process.wait(Duration::ZERO)
    }

    /// Stops it as an operator would, and kills it if that takes too long. Does nothing if it has
    /// ended.
    pub(crate) async fn stop(&mut self, screen: Screen) -> Result<(), Error> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        // It may be frozen: the summary suggests that.
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
