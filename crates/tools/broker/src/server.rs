//! A broker: a server with its own folder that can be stopped, killed, paused and restarted.

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

/// How long a stop may take before the server is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How long a restart waits before it checks again whether its port and store are free.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// The file with additional settings of a test.
const SETTINGS: &str = "settings.conf";

/// How long a server may take to retire: it closes one connection per second.
const RETIRE_WITHIN: Duration = Duration::from_mins(1);

/// A nats-server with JetStream on 127.0.0.1, running as a child process; killed on drop.
#[derive(Debug)]
pub struct Broker {
    program: PathBuf,
    options: Options,
    name: String,
    port: u16,
    tail: Tail,
    // The order matters: the server is dropped before its folder.
    child: Child,
    _temp: Option<TempDir>,
}

impl Broker {
    /// Starts a server and waits until JetStream answers; blocks for about 50 ms.
    ///
    /// Errors: [`Error::PortTaken`], [`Error::StoreInUse`], [`Error::Ended`], [`Error::NotReady`];
    /// nothing is left running then.
    pub fn start(binary: &Binary, options: Options) -> Result<Self, Error> {
        Self::start_with(binary, options, None)
    }

    /// For tests: finds a server and starts it with [`Options::new`] in a temporary folder, removed
    /// with the broker.
    pub fn start_in_temp() -> Result<Self, Error> {
        Self::start_in_temp_with("")
    }

    /// [`start_in_temp`](Self::start_in_temp) with additional `settings`, in the server's
    /// configuration language.
    pub fn start_in_temp_with(settings: &str) -> Result<Self, Error> {
        let binary = find(&|_| {})?;
        let temp = tempfile::Builder::new()
            .prefix("headwater-nats-")
            .tempdir()
            .map_err(error::io("create", "a temporary folder"))?;
        std::fs::write(temp.path().join(SETTINGS), settings)
            .map_err(error::io("write", "the settings"))?;
        let options = Options {
            include: Some(SETTINGS.to_owned()),
            ..Options::new(temp.path())
        };
        Self::start_with(&binary, options, Some(temp))
    }

    /// Replaces the settings of [`start_in_temp_with`](Self::start_in_temp_with), and reloads the
    /// server (SIGHUP).
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

    /// The port, which never changes for this broker.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The `server_name` that clients see. It is unique to this broker and survives restarts.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id of this run, or of the last one.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of its configuration; its data is in `jetstream/`.
    pub fn store(&self) -> &Path {
        &self.options.store
    }

    /// The last 40 lines of its log, across restarts.
    pub fn log_tail(&self) -> String {
        self.tail.text()
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        self.options.member.as_ref()
    }

    pub(crate) fn ready_within(&self) -> Duration {
        self.options.ready_within
    }

    /// The server's exit status, if it has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.wait(Duration::ZERO).ok().flatten()
    }

    /// Stops the server as an operator would (SIGTERM), and kills it if that takes longer than 10
    /// s.
    ///
    /// A paused server is resumed for it; nothing happens if the server has ended.
    pub fn stop(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.exited() {
            return Ok(status);
        }
        self.child.terminate()?;
        self.wait_or_kill(STOP_WITHIN)
    }

    /// Makes the server retire (SIGUSR2): it hands its streams to other servers, closes its
    /// connections one by one, and ends. It is killed if that takes longer than a minute.
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

    /// Kills the server as a crash would (SIGKILL); nothing happens if it has ended.
    pub fn kill(&mut self) -> Result<ExitStatus, Error> {
        if let Some(status) = self.exited() {
            return Ok(status);
        }
        self.child.kill()?.ok_or_else(|| Error::NotReady {
            within: KILL_WITHIN,
            last: "it was killed, but has not ended".to_owned(),
            log: self.tail.text(),
        })
    }

    /// Makes the server read its configuration again (SIGHUP); connections stay open.
    pub fn reload(&self) -> Result<(), Error> {
        self.child.signal(Signal::HUP)
    }

    /// Pauses the server (SIGSTOP) and waits until it has stopped: connections stay open, but
    /// nothing is answered.
    pub fn pause(&self) -> Result<(), Error> {
        self.child.pause()
    }

    /// Resumes a paused server (SIGCONT).
    pub fn resume(&self) -> Result<(), Error> {
        self.child.resume()
    }

    /// Starts the server again on the same port and store; if it still runs, it is stopped first.
    ///
    /// Waits, within [`Options::ready_within`], if the port or store is still in use: an outgoing
    /// connection may have been assigned the port while the server was away.
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

/// Starts one run and waits until it is ready; otherwise the child is killed on drop.
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
