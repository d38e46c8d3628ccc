//! A service as a child process: killed, paused and looked at from outside.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use broker::Watchdog;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde_json::Value;

use crate::PATIENCE;

/// A service's process, in a process group of its own; killed when dropped, and by its watchdog
/// when the test is killed itself.
#[derive(Debug)]
pub struct Process {
    child: Child,
    watchdog: Watchdog,
    log: PathBuf,
    /// Where its own log begins in the file, which all runs of the service share.
    log_from: u64,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`, whose errors go to the end of the file `log`.
    ///
    /// # Panics
    /// When there is no such program.
    pub fn spawn(mut command: Command, log: PathBuf) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(&log);
        let file: File = file.expect("open the log");
        let log_from = file.metadata().expect("the log's size").len();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", command.get_program().display()));
        let watchdog = Watchdog::over(child.id()).expect("start a watchdog");
        Self {
            child,
            watchdog,
            log,
            log_from,
            ended: None,
        }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Panics
    /// When it cannot be asked.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("ask for a child");
            if self.ended.is_some() {
                self.watchdog.stand_down();
            }
        }
        self.ended
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it does not, within [`PATIENCE`].
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
        if self.exited().is_none() {
            // Fails only if it has just ended by itself.
            let _ = self.signal(Signal::KILL);
            self.ended();
        }
    }

    /// SIGTERM, and waits until it has ended in order.
    ///
    /// # Panics
    /// When it ends otherwise.
    pub fn stop(&mut self) {
        // Fails only if it has ended by itself, which its status will tell.
        let _ = self.signal(Signal::TERM);
        let status = self.ended();
        assert!(status.success(), "it ended with {status}:\n{}", self.log());
    }

    /// SIGSTOP: it keeps its connections and its locks, and does nothing.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn pause(&self) {
        self.signal(Signal::STOP).expect("pause a child");
        let id = WaitId::Pid(Pid::from_child(&self.child));
        waitid(id, WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).expect("wait for a child");
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// When it has ended.
    pub fn resume(&self) {
        self.signal(Signal::CONT).expect("resume a child");
    }

    /// SIGHUP.
    ///
    /// # Panics
    /// When it has ended.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP).expect("signal a child");
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process_group(Pid::from_child(&self.child), signal).map_err(io::Error::from)
    }

    /// Whether it ended by a crash point.
    pub fn crashed(&mut self) -> bool {
        self.ended().signal() == Some(Signal::ABORT.as_raw())
    }

    /// What this run has logged.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let own = bytes.get(usize::try_from(self.log_from).unwrap_or(0)..);
        String::from_utf8_lossy(own.unwrap_or_default()).into_owned()
    }

    /// The address that it listens on, once it says so.
    pub fn address(&self) -> Option<SocketAddr> {
        lines(&self.log()).find(|line| line["message"] == "listening")?["address"]
            .as_str()?
            .parse()
            .ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The lines of a log that are JSON.
pub fn lines(log: &str) -> impl Iterator<Item = Value> {
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
}

/// A program that was built beside this test.
///
/// # Panics
/// When it is not there.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a path of our own");
    let folders = own.ancestors().skip(1).take(2);
    folders
        .map(|folder: &Path| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is not beside {}", own.display()))
}
