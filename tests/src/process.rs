//! A service's process: a child or a container that can be killed, paused and inspected.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use broker::Watchdog;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde_json::Value;

use crate::PATIENCE;
use crate::docker::{Container, ContainerGuard};

/// A started service.
#[derive(Debug)]
pub enum Process {
    /// A child process of the test.
    Child(Box<Child>),
    /// A container next to the test.
    Container(Box<Container>),
}

impl Process {
    /// Starts `command` as a child whose stderr is appended to the file `log`.
    pub fn spawn(command: Command, log: PathBuf) -> Self {
        Self::Child(Box::new(Child::spawn(command, log)))
    }

    /// The process id on this host.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Child(child) => child.process.id(),
            Self::Container(_) => panic!("a container has no process here"),
        }
    }

    /// The exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        match self {
            Self::Child(child) => child.exited(),
            Self::Container(container) => container.exited(),
        }
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the process has not ended:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        match self {
            Self::Child(child) => child.kill(),
            Self::Container(container) => {
                container.guard().kill().expect("kill a container");
                self.ended();
            }
        }
    }

    /// Sends SIGTERM and waits for an orderly end.
    pub fn stop(&mut self) {
        match self {
            // Fails only if the child has just ended; its status shows how.
            Self::Child(child) => drop(child.signal(Signal::TERM)),
            Self::Container(container) => {
                container.guard().stop(PATIENCE).expect("stop a container");
            }
        }
        let status = self.ended();
        assert!(
            status.success(),
            "the process ended with {status}:\n{}",
            self.log()
        );
    }

    /// Freezes it: it keeps its connections and locks, and does nothing.
    pub fn pause(&self) {
        match self {
            Self::Child(child) => child.pause(),
            Self::Container(container) => container.guard().pause().expect("pause a container"),
        }
    }

    pub fn resume(&self) {
        match self {
            Self::Child(child) => child.signal(Signal::CONT).expect("resume a child"),
            Self::Container(container) => container.guard().resume().expect("resume a container"),
        }
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        match self {
            Self::Child(child) => child.signal(Signal::HUP).expect("signal a child"),
            Self::Container(container) => {
                let signalled = container.guard().signal("SIGHUP");
                signalled.expect("signal a container");
            }
        }
    }

    /// Whether a crash point ended it.
    pub fn crashed(&mut self) -> bool {
        let signal = self.ended().signal();
        match self {
            Self::Child(_) => signal == Some(Signal::ABORT.as_raw()),
            // The first process of a container ignores SIGABRT, even its own. `abort` then executes
            // an instruction that is always fatal.
            Self::Container(_) => [Signal::ABORT, Signal::SEGV, Signal::ILL]
                .iter()
                .any(|fatal| signal == Some(fatal.as_raw())),
        }
    }

    /// What this run has logged.
    pub fn log(&self) -> String {
        match self {
            Self::Child(child) => log_from(&child.log, child.log_from),
            Self::Container(container) => container.log(),
        }
    }

    /// Its addresses on this host, once its log says that it listens.
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Child(child) => Address::logged(&log_from(&child.log, child.log_from)),
            Self::Container(container) => container.address(),
        }
    }

    pub fn container(&self) -> &ContainerGuard {
        match self {
            Self::Child(_) => panic!("the service is a child process"),
            Self::Container(container) => container.guard(),
        }
    }
}

/// The addresses of a service on this host.
#[derive(Debug, Clone, Copy)]
pub struct Address {
    /// The public API.
    pub http: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl Address {
    /// Reads the addresses from the log line of a listening service.
    pub fn logged(log: &str) -> Option<Self> {
        let line = lines(log).find(|line| line["message"] == "listening")?;
        let at = |name: &str| line[name].as_str()?.parse().ok();
        Some(Self {
            http: at("address")?,
            admin: at("admin")?,
        })
    }
}

/// A child process in its own process group. It is killed when dropped, or by its watchdog when the
/// test is killed.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    watchdog: Watchdog,
    log: PathBuf,
    /// Where this run begins in the log file, which all runs of the service share.
    log_from: u64,
    ended: Option<ExitStatus>,
}

impl Child {
    fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file: File = file.expect("open the log");
        let log_from = file.metadata().expect("the log's size").len();
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", command.get_program().display()));
        let watchdog = Watchdog::over(process.id()).expect("start a watchdog");
        Self {
            process,
            watchdog,
            log,
            log_from,
            ended: None,
        }
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().expect("ask for a child");
            if self.ended.is_some() {
                self.watchdog.stand_down();
            }
        }
        self.ended
    }

    fn kill(&mut self) {
        if self.exited().is_none() {
            // Fails only if the child has just ended.
            let _ = self.signal(Signal::KILL);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.exited().is_none() {
            assert!(Instant::now() < deadline, "the process survived SIGKILL");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGSTOP and waits until it takes effect.
    fn pause(&self) {
        self.signal(Signal::STOP).expect("pause a child");
        let id = WaitId::Pid(Pid::from_child(&self.process));
        waitid(id, WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).expect("wait for a child");
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process_group(Pid::from_child(&self.process), signal).map_err(io::Error::from)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The part of a shared log after `from`.
pub(crate) fn log_from(log: &Path, from: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let own = bytes.get(usize::try_from(from).unwrap_or(0)..);
    String::from_utf8_lossy(own.unwrap_or_default()).into_owned()
}

/// The JSON lines of a log.
pub fn lines(log: &str) -> impl Iterator<Item = Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}
