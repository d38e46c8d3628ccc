//! A service's process, a child or a container: killed, paused and looked at from outside.

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
use crate::docker::{Container, Held};

/// A service that was started.
#[derive(Debug)]
pub enum Process {
    /// A child process of the test.
    Child(Box<Child>),
    /// A container beside the test.
    Container(Box<Container>),
}

impl Process {
    /// Starts `command` as a child, whose errors go to the end of the file `log`.
    pub fn spawn(command: Command, log: PathBuf) -> Self {
        Self::Child(Box::new(Child::spawn(command, log)))
    }

    /// Its number on this host.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Child(child) => child.process.id(),
            Self::Container(_) => panic!("a container has no process here"),
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        match self {
            Self::Child(child) => child.exited(),
            Self::Container(container) => container.exited(),
        }
    }

    /// Waits until it has ended.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.exited() {
                return status;
            }
            assert!(Instant::now() < deadline, "it runs on:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        match self {
            Self::Child(child) => child.kill(),
            Self::Container(container) => {
                container.held().kill().expect("kill a container");
                self.ended();
            }
        }
    }

    /// SIGTERM, and waits until it has ended in order.
    pub fn stop(&mut self) {
        match self {
            // Fails only if it has ended by itself, which its status will tell.
            Self::Child(child) => drop(child.signal(Signal::TERM)),
            Self::Container(container) => {
                container.held().stop(PATIENCE).expect("stop a container");
            }
        }
        let status = self.ended();
        assert!(status.success(), "it ended with {status}:\n{}", self.log());
    }

    /// It stands still: it keeps its connections and its locks, and does nothing.
    pub fn pause(&self) {
        match self {
            Self::Child(child) => child.pause(),
            Self::Container(container) => container.held().pause().expect("pause a container"),
        }
    }

    /// It goes on.
    pub fn resume(&self) {
        match self {
            Self::Child(child) => child.signal(Signal::CONT).expect("resume a child"),
            Self::Container(container) => container.held().resume().expect("resume a container"),
        }
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        match self {
            Self::Child(child) => child.signal(Signal::HUP).expect("signal a child"),
            Self::Container(container) => {
                let signalled = container.held().signal("SIGHUP");
                signalled.expect("signal a container");
            }
        }
    }

    /// Whether it ended by a crash point.
    pub fn crashed(&mut self) -> bool {
        let signal = self.ended().signal();
        match self {
            Self::Child(_) => signal == Some(Signal::ABORT.as_raw()),
            // The first process of a container ignores SIGABRT, also its own: `abort` goes on to
            // an instruction that no process survives.
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

    /// Where it is on this host, once it says that it listens.
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Child(child) => Address::logged(&log_from(&child.log, child.log_from)),
            Self::Container(container) => container.address(),
        }
    }

    /// The container in which it runs.
    pub fn container(&self) -> &Held {
        match self {
            Self::Child(_) => panic!("it is a child process"),
            Self::Container(container) => container.held(),
        }
    }
}

/// Where a service is on this host.
#[derive(Debug, Clone, Copy)]
pub struct Address {
    /// What everybody asks.
    pub http: SocketAddr,
    /// Health and metrics.
    pub admin: SocketAddr,
}

impl Address {
    /// Where a service says in its log that it listens.
    pub fn logged(log: &str) -> Option<Self> {
        let line = lines(log).find(|line| line["message"] == "listening")?;
        let at = |name: &str| line[name].as_str()?.parse().ok();
        Some(Self {
            http: at("address")?,
            admin: at("admin")?,
        })
    }
}

/// A child process, in a process group of its own; killed when dropped, and by its watchdog when
/// the test is killed itself.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    watchdog: Watchdog,
    log: PathBuf,
    /// Where its own log begins in the file, which all runs of the service share.
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
            // Fails only if it has just ended by itself.
            let _ = self.signal(Signal::KILL);
        }
        let deadline = Instant::now() + PATIENCE;
        while self.exited().is_none() {
            assert!(Instant::now() < deadline, "it was killed, and runs on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGSTOP, and waits until it has stopped.
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

/// What a log that several runs share has from `from` on.
pub(crate) fn log_from(log: &Path, from: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let own = bytes.get(usize::try_from(from).unwrap_or(0)..);
    String::from_utf8_lossy(own.unwrap_or_default()).into_owned()
}

/// The lines of a log that are JSON.
pub fn lines(log: &str) -> impl Iterator<Item = Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}
