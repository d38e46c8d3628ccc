//! The browser's protocol: JSON that ends with a zero byte, over two pipes.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// How long the browser may take for one command, its start included.
const WITHIN: Duration = Duration::from_mins(1);

/// The protocol is at the descriptors 3 and 4, which `Command` cannot give to a child.
const PIPES: &str = "exec chromium \"$@\" 3<&0 4>&1 </dev/null >&2";

/// Runs as root, and reaches this machine only.
const FLAGS: [&str; 14] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.* , EXCLUDE localhost",
];

/// A browser and its pipes.
#[derive(Debug)]
pub(super) struct Protocol {
    child: Mutex<Child>,
    pipe: Arc<Mutex<Pipe>>,
    seen: Arc<Mutex<Seen>>,
    folder: TempDir,
}

#[derive(Debug)]
struct Pipe {
    commands: ChildStdin,
    last_id: u64,
}

/// What the browser has sent.
#[derive(Debug, Default)]
struct Seen {
    waiting: HashMap<u64, oneshot::Sender<Result<Value, String>>>,
    /// The events of each page, by its session.
    events: HashMap<String, Vec<Value>>,
}

impl Protocol {
    /// Starts a browser with an empty profile.
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut child = Command::new("sh")
            .args(["-c", PIPES, "sh"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", folder.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("run chromium");
        let pipe = Arc::new(Mutex::new(Pipe {
            commands: child.stdin.take().expect("a pipe"),
            last_id: 0,
        }));
        let answers = child.stdout.take().expect("a pipe");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (to_pipe, to_seen) = (Arc::clone(&pipe), Arc::clone(&seen));
        std::thread::spawn(move || read(answers, &to_pipe, &to_seen));
        Self {
            child: Mutex::new(child),
            pipe,
            seen,
            folder,
        }
    }

    /// Runs a command of the browser, or of the page of `session`.
    pub(super) async fn call(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, String> {
        let (answer, answered) = oneshot::channel();
        let sent = lock(&self.pipe).send(session, method, &params, |id| {
            lock(&self.seen).waiting.insert(id, answer);
        });
        if let Err(error) = sent {
            panic!("{method}: {error}\n{}", self.log());
        }
        let Ok(Ok(answer)) = tokio::time::timeout(WITHIN, answered).await else {
            panic!("{method}: no answer from chromium\n{}", self.log());
        };
        answer.map_err(|error| format!("{method}: {error}"))
    }

    /// Sends a command without waiting for its answer.
    pub(super) fn send(&self, session: Option<&str>, method: &str, params: &Value) {
        // A browser that has ended needs no commands.
        let _ = lock(&self.pipe).send(session, method, params, |_| ());
    }

    /// What `select` makes of each event of a page so far.
    pub(super) fn events<T>(
        &self,
        session: &str,
        select: impl FnMut(&Value) -> Option<T>,
    ) -> Vec<T> {
        let seen = lock(&self.seen);
        let events = seen.events.get(session).into_iter().flatten();
        events.filter_map(select).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Protocol {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Fails only if all of them have ended.
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
        let _ = child.wait();
    }
}

impl Pipe {
    fn send(
        &mut self,
        session: Option<&str>,
        method: &str,
        params: &Value,
        before: impl FnOnce(u64),
    ) -> std::io::Result<()> {
        self.last_id += 1;
        let mut command = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        before(self.last_id);
        let mut bytes = command.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes)
    }
}

/// Reads until the browser ends.
fn read(answers: ChildStdout, pipe: &Mutex<Pipe>, seen: &Mutex<Seen>) {
    let mut answers = BufReader::new(answers);
    let mut bytes = Vec::new();
    while answers.read_until(0, &mut bytes).is_ok_and(|read| read > 0) {
        bytes.pop();
        let message = serde_json::from_slice(&bytes).expect("the protocol is JSON");
        bytes.clear();
        arrived(message, pipe, seen);
    }
    lock(seen).waiting.clear();
}

fn arrived(mut message: Value, pipe: &Mutex<Pipe>, seen: &Mutex<Seen>) {
    if let Some(id) = message["id"].as_u64() {
        let Some(waiting) = lock(seen).waiting.remove(&id) else {
            return;
        };
        let answer = match message.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(message["result"].take()),
        };
        // The caller may have stopped waiting.
        let _ = waiting.send(answer);
        return;
    }
    let Some(session) = message["sessionId"].as_str().map(str::to_owned) else {
        return;
    };
    // `alert` blocks the page until it is answered.
    if message["method"] == "Page.javascriptDialogOpening" {
        let refuse = json!({ "accept": false });
        let _ = lock(pipe).send(
            Some(&session),
            "Page.handleJavaScriptDialog",
            &refuse,
            |_| (),
        );
    }
    lock(seen).events.entry(session).or_default().push(message);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
