//! Starts `dev`, sends requests to its services, and waits.

use std::fmt::Debug;
use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;

use headwater_testkit::{PATIENCE, eventually_blocking, has_built};
use reqwest::{Client, Response};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

/// A `cargo dev`, killed on drop; its watchdogs kill its processes.
pub(crate) struct Dev {
    process: Child,
    stdout: Receiver<String>,
    stderr: Arc<Mutex<String>>,
}

impl Dev {
    /// Starts one on free ports.
    pub(crate) fn spawn(data: &Path, arguments: &[&str]) -> Self {
        let free = ["--http-port", "0", "--nats-port", "0"];
        Self::with(data, |command| command.args(free).args(arguments))
    }

    pub(crate) fn with(data: &Path, with: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dev"));
        command.arg("--data").arg(data).args(["--output", "json"]);
        command.envs(has_built());
        let mut process = with(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = first_line(process.stdout.take().unwrap());
        let stderr = collect(process.stderr.take().unwrap());
        Self {
            process,
            stdout,
            stderr,
        }
    }

    /// Starts one and waits for its summary.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> (Self, Value) {
        Self::spawn(data, arguments).started()
    }

    /// Waits for its summary.
    pub(crate) fn started(self) -> (Self, Value) {
        let Ok(line) = self.stdout.recv_timeout(PATIENCE) else {
            panic!("no summary; stderr:\n{}", self.stderr());
        };
        let summary = serde_json::from_str(&line).unwrap();
        (self, summary)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Stops it with Ctrl-C, which must succeed.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::INT);
        assert_eq!(self.ended().code(), Some(0), "{}", self.stderr());
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        eventually_blocking("dev to end", || {
            self.process.try_wait().unwrap().ok_or("it runs")
        })
    }

    /// Waits until stderr has `text`.
    pub(crate) fn says(&self, text: &str) {
        eventually_blocking(text, || {
            let said = self.stderr();
            if said.contains(text) {
                Ok(())
            } else {
                Err(said)
            }
        });
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until it has failed; returns its message.
    pub(crate) fn fails(mut self) -> String {
        assert_eq!(self.ended().code(), Some(1), "{}", self.stderr());
        // Lines of services are prefixed with their name.
        let message = || {
            let stderr = self.stderr();
            let messages = stderr.match_indices("error: ").map(|(at, _)| at);
            let is_own = |at: &usize| *at == 0 || stderr[..*at].ends_with('\n');
            let own: Vec<usize> = messages.filter(is_own).collect();
            let [own] = *own else { return Err(stderr) };
            Ok(stderr[own..].trim_end().to_owned())
        };
        eventually_blocking("one message", message)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

fn first_line(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(stdout).lines();
        if let Some(Ok(line)) = lines.next() {
            let _unheard = sender.send(line);
        }
        // Keep reading, so that it never writes to a closed pipe.
        lines.for_each(drop);
    });
    receiver
}

fn collect(stderr: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let (text, reader) = (Arc::new(Mutex::new(String::new())), BufReader::new(stderr));
    let collected = Arc::clone(&text);
    thread::spawn(move || {
        for line in reader.lines().map_while(Result::ok) {
            *collected.lock().unwrap() += &(line + "\n");
        }
    });
    text
}

/// The processes of a summary: the services and the broker.
pub(crate) fn pids(summary: &Value) -> Vec<Pid> {
    let services = summary["services"].as_object().unwrap().values();
    let pids = services.chain([&summary["nats"]]).map(pid);
    pids.collect()
}

pub(crate) fn pid(process: &Value) -> Pid {
    let pid = process["pid"].as_i64().unwrap();
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

/// Whether a process has ended and been reaped.
pub(crate) fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid) == Err(Errno::SRCH)
}

/// Asserts that all processes of a summary are gone.
pub(crate) fn assert_all_gone(summary: &Value) {
    for pid in pids(summary) {
        assert!(is_gone(pid), "{pid:?} in {summary:#}");
    }
}

/// Waits until no process listens at the addresses of a summary's services.
pub(crate) fn nobody_answers(summary: &Value) {
    for process in summary["services"].as_object().unwrap().values() {
        let address = process["url"].as_str().unwrap();
        let address = address.strip_prefix("http://").unwrap();
        eventually_blocking(&format!("no process to listen at {address}"), || {
            match TcpStream::connect(address) {
                Ok(_) => Err("a process"),
                Err(_) => Ok(()),
            }
        });
    }
}

/// The address of a path of a service.
pub(crate) fn url(summary: &Value, service: &str, path: &str) -> String {
    let service = summary["services"][service]["url"].as_str().unwrap();
    format!("{service}{path}")
}

pub(crate) fn client() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

/// Reads an address, which must exist.
pub(crate) async fn get(url: impl AsRef<str> + Debug) -> Response {
    let answer = client().get(url.as_ref()).send().await.unwrap();
    answer.error_for_status().unwrap()
}

/// Reads JSON from an address.
pub(crate) async fn json(url: impl AsRef<str> + Debug) -> Value {
    get(url).await.json().await.unwrap()
}
