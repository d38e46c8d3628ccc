//! A broker: a server with a place of its own, which can be stopped, killed, paused and started again.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    child::{Child, KILL_WITHIN},
    config,
    error::{self, Error},
    find::find,
    member::Member,
    options::{Options, Port},
    paths::Binary,
    ready::{self, Expected},
    tail::Tail,
};

/// How long an orderly stop may take before the server is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long a restart waits before it looks again whether its port and store are free.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// The file with the settings that a test adds.
const SETTINGS: &str = "settings.conf";

/// How long a server may take to retire; it closes a connection a second.
const RETIRE_WITHIN: Duration = Duration::from_mins(1);

/// A nats-server with JetStream on 127.0.0.1, running as a child of this process; killed when dropped.
#[derive(Debug)]
pub struct Broker {
    program: PathBuf,
    options: Options,
    name: String,
    port: u16,
    tail: Tail,
    // The order matters: the server goes before its folder.
    child: Child,
    _temp: Option<TempDir>,
}

impl Broker {
    /// Starts a server and waits until JetStream answers; blocks for some 50 ms.
    ///
    /// Errors: [`Error::PortTaken`], [`Error::StoreInUse`], [`Error::Ended`], [`Error::NotReady`]; nothing is left
    /// running then.
    pub fn start(binary: &Binary, options: Options) -> Result<Self, Error> {
        Self::start_with(binary, options, None)
    }

    /// For tests: finds a server and starts it with [`Options::new`] in a temporary folder that goes with the broker.
    pub fn start_in_temp() -> Result<Self, Error> {
        Self::start_in_temp_with("")
    }

    /// [`start_in_temp`](Self::start_in_temp) with `settings`, in the server's configuration language, besides.
    pub fn start_in_temp_with(settings: &str) -> Result<Self, Error> {
        let binary = find(&|_| {})?;
        let temp = tempfile::Builder::new()
            .prefix("headwater-nats-")
            .tempdir()
            .map_err(error::io("make", "a temporary folder"))?;
        std::fs::write(temp.path().join(SETTINGS), settings)
            .map_err(error::io("write", "the settings"))?;
        let options = Options {
            include: Some(SETTINGS.to_owned()),
            ..Options::new(temp.path())
        };
        Self::start_with(&binary, options, Some(temp))
    }

    /// Replaces what [`start_in_temp_with`](Self::start_in_temp_with) was given, and has the server read it (SIGHUP).
    pub fn reload_with(&self, settings: &str) -> Result<(), Error> {
        std::fs::write(self.options.store.join(SETTINGS), settings)
            .map_err(error::io("write", "the settings"))?;
        self.child.signal(Signal::HUP)
    }

    fn start_with(binary: &Binary, options: Options, temp: Option<TempDir>) -> Result<Self, Error> {
        let name = format!("headwater-{}", Uuid::now_v7());
        let tail = Tail::default();
        let (child, port) = launch(&binary.path, &options, &name, options.port, &tail)?;
        Ok(Self {
            program: binary.path.clone(),
            options,
            name,
            port,
            tail,
            child,
            _temp: temp,
        })
    }

    /// `nats://127.0.0.1:PORT`
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The port, the same for the life of the broker.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The `server_name` that a client sees: of this broker only, and the same after a restart.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process of this run, or of the last one.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of its configuration, and of its data in `jetstream/`.
    pub fn store(&self) -> &Path {
        &self.options.store
    }

    /// The last 40 lines of its log, over all its runs.
    pub fn log_tail(&self) -> String {
        self.tail.text()
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        self.options.member.as_ref()
    }

    pub(crate) fn ready_within(&self) -> Duration {
        self.options.ready_within
    }

    /// How the server ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.wait(Duration::ZERO).ok().flatten()
    }

    /// Stops the server as an operator would (SIGTERM), and kills it if that takes longer than 10 s.
    ///
    /// A paused one is woken for it; one that has ended is left alone.
    pub fn stop(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.exited() {
            return Ok(status);
        }
        self.child.terminate()?;
        self.wait_or_kill(STOP_WITHIN)
    }

    /// Lets the server retire (SIGUSR2): it hands its streams to others, closes connections one by one, and ends.
    /// One that takes longer than a minute is killed.
    pub fn retire(&mut self) -> Result<ExitStatus, Error> {
        self.child.signal(Signal::USR2)?;
        self.wait_or_kill(RETIRE_WITHIN)
    }

    fn wait_or_kill(&mut self, within: Duration) -> Result<ExitStatus, Error> {
        match self.child.wait(within)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Kills the server as a crash would (SIGKILL); one that has ended is left alone.
    pub fn kill(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.exited() {
            return Ok(status);
        }
        self.child.kill()?.ok_or_else(|| Error::NotReady {
            within: KILL_WITHIN,
            last: "it was killed, and does not end".to_owned(),
            log: self.tail.text(),
        })
    }

    /// Has the server read its configuration again (SIGHUP); connections stay.
    pub fn reload(&self) -> Result<(), Error> {
        self.child.signal(Signal::HUP)
    }

    /// Stops the server where it is (SIGSTOP) and waits until it has stopped: connections stay open, nothing is
    /// answered.
    pub fn pause(&self) -> Result<(), Error> {
        self.child.pause()
    }

    /// Lets a paused server go on (SIGCONT).
    pub fn resume(&self) -> Result<(), Error> {
        self.child.signal(Signal::CONT)
    }

    /// Starts the server again on the same port and store; one that still runs is stopped first.
    ///
    /// Waits, within [`Options::ready_within`], for a port or store that is still in use: while the server was away
    /// an outgoing connection of anybody may have got its port for a moment.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        let end = Instant::now() + self.options.ready_within;
        loop {
            let port = Port::Fixed(self.port);
            match launch(&self.program, &self.options, &self.name, port, &self.tail) {
                Err(Error::PortTaken { .. } | Error::StoreInUse { .. }) if Instant::now() < end => {
                    thread::sleep(BUSY_PAUSE);
                }
                done => {
                    (self.child, _) = done?;
                    return Ok(());
                }
            }
        }
    }
}

/// One run, from nothing to ready; if it does not become ready, the child is killed as it is dropped.
fn launch(
    program: &Path,
    options: &Options,
    name: &str,
    port: Port,
    tail: &Tail,
) -> Result<(Child, u16), Error> {
    if let Port::Fixed(port) = port {
        ready::check_free(port)?;
    }
    if let Some(member) = &options.member {
        ready::check_free(member.port)?;
        ready::check_free(member.monitor)?;
    }
    let config = config::write(options, name, port)?;
    let mut command = Command::new(program);
    command
        .arg("--config")
        .arg(&config.path)
        .stdin(config.locked);
    let mut child = Child::spawn("nats-server", command, &options.log, tail)?;
    let expected = Expected {
        name,
        port,
        ports: &config.ports,
        within: options.ready_within,
    };
    let port = ready::wait(&mut child, &expected, tail)?;
    Ok((child, port))
}
