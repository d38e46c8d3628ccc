//! A child process that cannot outlive its owner.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitStatus},
    thread::JoinHandle,
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use crate::{
    deadline,
    error::{self, Error},
    options::Log,
    tail::Tail,
    watchdog::Watchdog,
};

/// How long the log of an ended process may take to be read to its end.
const LOG_WITHIN: Duration = Duration::from_secs(1);

/// How long a killed process may take to end: it may be waiting for the disk.
pub(crate) const KILL_WITHIN: Duration = Duration::from_secs(30);

/// How long a process may take to stop on SIGSTOP.
const PAUSE_WITHIN: Duration = Duration::from_secs(5);

/// A process, alone in its process group, so that no Ctrl-C reaches it. It is killed and reaped on
/// drop, and by its watchdog if we are killed.
///
/// Signals go to the group, so that they also reach a program behind a wrapper script.
#[derive(Debug)]
pub struct Child {
    name: &'static str,
    process: std::process::Child,
    watchdog: Watchdog,
    log: JoinHandle<()>,
    /// Set once it is reaped: its process id may then be reused.
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `command`, called `name` in errors. Its output goes to `log`, its last lines to
    /// `tail`.
    pub fn spawn(
        name: &'static str,
        mut command: Command,
        log: &Log,
        tail: &Tail,
    ) -> Result<Self, Error> {
        let program = command.get_program().to_owned();
        let failed = || error::io("start", program.display());
        let (reader, writer) = io::pipe().map_err(failed())?;
        let log = tail
            .follow(reader, log)
            .map_err(error::io("write", format!("the log of {name}")))?;
        let mut process = command
            .stdout(writer.try_clone().map_err(failed())?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .map_err(failed())?;
        match Watchdog::over(process.id()) {
            Ok(watchdog) => Ok(Self {
                name,
                process,
                watchdog,
                log,
                status: None,
            }),
            Err(error) => {
                deadline::kill(&mut process);
                Err(error::io("start", format!("the watchdog of {name}"))(error))
            }
        }
    }

    /// Its process id, even after it has ended.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends `signal`; fails if the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Error> {
        if self.status.is_some() {
            return Err(Error::NotRunning);
        }
        kill_process_group(Pid::from_child(&self.process), signal)
            .map_err(|errno| error::io("send a signal to", self.name)(errno.into()))
    }

    /// Asks it to stop, as an operator would (SIGTERM); a paused process is resumed for it.
    pub fn terminate(&self) -> Result<(), Error> {
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)
    }

    /// Pauses it (SIGSTOP), and waits until all its threads have stopped.
    pub fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)?;
        let id = WaitId::Pid(Pid::from_child(&self.process));
        // `NOWAIT` leaves the state in place, so that pausing twice does not wait forever.
        let how = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let looked = deadline::poll(PAUSE_WITHIN, || waitid(id.clone(), how).transpose());
        let stopped = looked.unwrap_or(Err(Errno::TIMEDOUT));
        stopped
            .map(|_| ())
            .map_err(|errno| error::io("pause", self.name)(errno.into()))
    }

    /// Resumes it after [`pause`](Self::pause) (SIGCONT).
    pub fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    /// Its exit status, if it ends within `within`.
    pub fn wait(&mut self, within: Duration) -> Result<Option<ExitStatus>, Error> {
        if self.status.is_none() {
            self.status = deadline::wait(&mut self.process, within)
                .map_err(error::io("wait for", self.name))?;
            if self.status.is_some() {
                self.watchdog.stand_down();
                deadline::poll(LOG_WITHIN, || self.log.is_finished().then_some(()));
            }
        }
        Ok(self.status)
    }

    /// Kills it; `None` if it has not ended within 30 s.
    pub fn kill(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.signal(Signal::KILL)?;
        self.wait(KILL_WITHIN)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Fails only if it has already been reaped.
        let _gone = self.kill();
        self.watchdog.stand_down();
    }
}
