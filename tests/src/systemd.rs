//! A machine under a real systemd, with Headwater installed as an operator would.
//!
//! It boots this machine's systemd and files in new namespaces over a temporary copy
//! (`tests/systemd/boot.sh`). Its network has only a loopback, with the usual ports.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::eventually;
use crate::faults::can_or_must;
use crate::installed::{installed, repository};
use crate::world::Service;

pub use crate::world::UNITS;

/// If 1, as in CI, the tests fail where systemd cannot boot.
const REQUIRED: &str = "HEADWATER_REQUIRE_SYSTEMD";

/// A booted machine; it ends with all its processes when it is dropped or this process ends.
#[derive(Debug)]
pub struct Machine {
    boot: Child,
    /// Its process 1, by its id on this machine.
    leader: String,
    /// The name of its control groups.
    name: String,
    _files: TempDir,
}

/// The result of a program on the machine.
#[derive(Debug)]
pub struct Done {
    /// Whether its exit code was 0.
    pub is_ok: bool,
    /// Its output and error output.
    pub text: String,
}

impl Machine {
    /// Runs `test` on a machine where Headwater is installed and does not run yet. The test runs on
    /// a runtime of this thread, in the machine's network. If the machine cannot boot, reports that
    /// instead.
    ///
    /// `drop_ins` are parts of unit files, by the name of their unit.
    pub fn run_test(drop_ins: &[(&str, &str)], test: impl AsyncFnOnce(&Self)) {
        Self::run_bare_test(drop_ins, async |machine| {
            machine.run(&["/usr/local/lib/headwater/setup"]).await;
            test(machine).await;
        });
    }

    /// Like [`run_test`](Self::run_test), on a machine that has only the files.
    pub fn run_bare_test(drop_ins: &[(&str, &str)], test: impl AsyncFnOnce(&Self)) {
        if let Some(machine) = Self::boot(drop_ins) {
            machine.run_inside(test);
        }
    }

    /// Like [`run_test`](Self::run_test), on a machine without Headwater and with other files:
    /// `make` creates them, or returns what it lacks.
    pub fn run_test_over(
        make: impl FnOnce() -> Result<TempDir, String>,
        test: impl AsyncFnOnce(&Self),
    ) {
        let files = is_root().and_then(|()| make());
        if let Some(machine) = booted(files.and_then(Self::try_boot)) {
            machine.run_inside(test);
        }
    }

    fn run_inside(&self, test: impl AsyncFnOnce(&Self)) {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.leader));
        let network = network.expect("open the machine's network");
        // This thread belongs to the test and ends with it.
        move_into_link_name_space(
            std::os::fd::AsFd::as_fd(&network),
            Some(LinkNameSpaceType::Network),
        )
        .expect("enter the machine's network");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            self.is_up().await;
            test(self).await;
        });
    }

    /// Boots a machine; reports it and returns `None` if that is not possible.
    pub fn boot(drop_ins: &[(&str, &str)]) -> Option<Self> {
        let files = installed();
        // For tests that install from a copy of the repository.
        let copy = files.path().join("root/headwater");
        fs::create_dir_all(&copy).expect("make a folder");
        let copied = Command::new("bash")
            .args(["-c", "cp -r LICENSE *.md docs deploy \"$0\""])
            .arg(&copy)
            .current_dir(repository())
            .status();
        assert!(copied.expect("run bash").success(), "copy the documents");
        for (unit, text) in drop_ins {
            let folder = files
                .path()
                .join("etc/systemd/system")
                .join(format!("{unit}.d"));
            fs::create_dir_all(&folder).expect("make a folder");
            fs::write(folder.join("test.conf"), text).expect("write a drop-in");
        }
        booted(Self::try_boot(files))
    }

    fn try_boot(files: TempDir) -> Result<Self, String> {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        is_root()?;
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("headwater-test-{}-{number}", std::process::id());
        let log = tempfile::tempfile().expect("a file");
        let mut boot = Command::new(repository().join("tests/systemd/boot.sh"))
            .arg(files.path())
            .arg(&name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone().expect("clone the file handle"))
            .spawn()
            .map_err(|error| format!("boot.sh: {error}"))?;
        let mut leader = String::new();
        let mut output = BufReader::new(boot.stdout.take().expect("its output"));
        output.read_line(&mut leader).expect("read its output");
        let machine = Self {
            boot,
            leader: leader.trim().to_owned(),
            name,
            _files: files,
        };
        if machine.leader.is_empty() {
            drop(machine);
            return Err(read(log));
        }
        Ok(machine)
    }

    /// Waits until systemd has started everything.
    async fn is_up(&self) {
        eventually("the machine to be up", async || {
            let state = self.try_run(&["systemctl", "is-system-running"]).await.text;
            // A unit of this machine may fail in there.
            if ["running", "degraded"].contains(&state.as_str()) {
                return Ok(());
            }
            Err(state)
        })
        .await;
    }

    /// Runs a program on the machine.
    pub async fn try_run(&self, command: &[&str]) -> Done {
        let output = self.command(command).stdin(Stdio::null()).output().await;
        let output = output.expect("run nsenter");
        let text = [output.stdout, output.stderr].concat();
        Done {
            is_ok: output.status.success(),
            text: String::from_utf8_lossy(&text).trim().to_owned(),
        }
    }

    /// A command to run on the machine.
    pub fn command(&self, command: &[&str]) -> tokio::process::Command {
        let mut entered = tokio::process::Command::new("nsenter");
        entered
            .args(["-t", &self.leader])
            .args(["-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"])
            .args(command)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("SYSTEMD_PAGER", "")
            .env("SYSTEMD_COLORS", "0")
            .kill_on_drop(true);
        entered
    }

    /// What this machine can see of it: its process 1 and its control groups.
    pub fn traces(&self) -> Vec<PathBuf> {
        let hierarchies = ["", "systemd", "unified"];
        let groups = hierarchies
            .map(|hierarchy| Path::new("/sys/fs/cgroup").join(hierarchy).join(&self.name));
        let process = Path::new("/proc").join(&self.leader);
        let there = groups.into_iter().filter(|group| group.exists());
        there.chain([process]).collect()
    }

    /// Like [`try_run`](Self::try_run); asserts success and returns the output.
    pub async fn run(&self, command: &[&str]) -> String {
        let done = self.try_run(command).await;
        assert!(done.is_ok, "{command:?}: {}", done.text);
        done.text
    }

    /// Runs a line of shell on the machine and asserts success.
    pub async fn sh(&self, line: &str) -> String {
        self.run(&["bash", "-euc", line]).await
    }

    /// A property of a unit, from `systemctl show`.
    pub async fn shows(&self, unit: &str, property: &str) -> String {
        self.run(&["systemctl", "show", "--value", "-p", property, unit])
            .await
    }

    /// Waits until a property of a unit satisfies `is_so`; returns it.
    pub async fn comes(&self, unit: &str, property: &str, is_so: impl Fn(&str) -> bool) -> String {
        eventually(&format!("{property} of {unit}"), async || {
            let value = self.shows(unit, property).await;
            if is_so(&value) {
                return Ok(value);
            }
            Err(value)
        })
        .await
    }

    /// Starts everything and waits until systemd reports all units as active.
    pub async fn start(&self) {
        let done = self
            .try_run(&["systemctl", "start", "headwater.target"])
            .await;
        assert!(done.is_ok, "{}\n{}", done.text, self.whole_journal().await);
        for unit in UNITS {
            self.comes(unit, "ActiveState", |state| state == "active")
                .await;
        }
    }

    /// Runs the operator's tool as root; asserts success and returns the output.
    pub async fn tool(&self, line: &str) -> String {
        self.sh(&format!("headwater {line}")).await
    }

    /// A connection to the broker as its operator.
    pub async fn operator(&self) -> async_nats::Client {
        let password = ". /etc/headwater/operator.env; printf %s $NATS_PASSWORD";
        let password = self.sh(password).await;
        let options =
            async_nats::ConnectOptions::with_user_and_password("operator".to_owned(), password);
        let connected = options.connect("nats://127.0.0.1:4222").await;
        connected.expect("connect to NATS")
    }

    /// The matching entries of the journal, as objects of their fields.
    pub async fn journal(&self, matches: &[&str]) -> Vec<Value> {
        let command = [&["journalctl", "-q", "-o", "json"], matches].concat();
        let text = self.run(&command).await;
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The last lines of the journal as text, for a failed test.
    pub async fn whole_journal(&self) -> String {
        self.try_run(&["journalctl", "-q", "-n", "200"]).await.text
    }

    /// A client of a service's health and metrics.
    pub fn admin(&self, service: Service) -> Client {
        Client::new(format!("http://127.0.0.1:{}", service.port() + 1000))
    }

    /// A client of a service.
    pub fn client(&self, service: Service) -> Client {
        Client::new(format!("http://127.0.0.1:{}", service.port()))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It ends when its input ends.
        drop(self.boot.stdin.take());
        let ended = self.boot.wait();
        drop(ended);
    }
}

/// The unit of a service.
pub fn unit(service: Service) -> String {
    format!("headwater-{}.service", service.name())
}

fn is_root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err("this user is not root".to_owned())
    }
}

/// The machine, or `None` with a report; fails if the machine is required.
fn booted(machine: Result<Machine, String>) -> Option<Machine> {
    let what = "root, namespaces, systemd, util-linux and iproute2";
    let (machine, found) = match machine {
        Ok(machine) => (Some(machine), Ok(())),
        Err(why) => (None, Err(why)),
    };
    can_or_must(REQUIRED, what, found).then_some(machine)?
}

fn read(mut file: fs::File) -> String {
    use std::io::{Read as _, Seek as _};
    let mut text = String::new();
    file.rewind().expect("rewind the log");
    file.read_to_string(&mut text).expect("read the log");
    text
}
