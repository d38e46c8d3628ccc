//! A program with a command line, as a test runs it.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// A program that runs, with pipes for its input and its output; it is killed when this is dropped.
#[derive(Debug)]
pub struct Tool {
    child: Child,
}

/// What a program left.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// All that it wrote to standard output and was not read before.
    pub stdout: String,
    /// The same of standard error.
    pub stderr: String,
}

impl Tool {
    /// Starts `program` with nothing but `environment`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(program: &str, args: &[impl AsRef<OsStr>], environment: &[(&str, &str)]) -> Self {
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start the program");
        Self { child }
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Writes to its input, which is closed when the answer is dropped.
    ///
    /// # Panics
    /// When it takes no input.
    pub async fn feed(&mut self, input: impl AsRef<[u8]>) -> ChildStdin {
        let mut stdin = self.child.stdin.take().expect("stdin");
        let written = stdin.write_all(input.as_ref()).await;
        written.expect("write to stdin");
        stdin
    }

    /// Waits for one line on standard output.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn says(&mut self) -> String {
        line(self.child.stdout.as_mut().expect("stdout")).await
    }

    /// Waits for one line on standard error.
    ///
    /// # Panics
    /// When none comes in time.
    pub async fn complaint(&mut self) -> String {
        line(self.child.stderr.as_mut().expect("stderr")).await
    }

    /// Reads so many lines of standard output, and then goes away as a reader.
    ///
    /// # Panics
    /// When they do not come in time.
    pub async fn read_and_close(&mut self, lines: usize) -> Vec<String> {
        let mut read = Vec::new();
        while read.len() < lines {
            read.push(self.says().await);
        }
        drop(self.child.stdout.take());
        read
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end in time, or did not write text.
    pub async fn end(self) -> Ended {
        let ended = timeout(PATIENCE, self.child.wait_with_output()).await;
        let ended = ended.expect("in time").expect("wait");
        Ended {
            code: ended.status.code(),
            stdout: String::from_utf8(ended.stdout).expect("UTF-8"),
            stderr: String::from_utf8(ended.stderr).expect("UTF-8"),
        }
    }
}

/// One line, and nothing of what comes behind it.
async fn line(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, from);
    let read = timeout(PATIENCE, reader.read_line(&mut line)).await;
    read.expect("in time").expect("read a line");
    line
}

/// Runs `program` on a terminal of its own (needs python3), and gives what was written there.
///
/// # Panics
/// When python3 is not there.
pub async fn on_terminal(program: &str, args: &[String], environment: &[(&str, &str)]) -> String {
    const SPAWN: &str = "import pty, sys; pty.spawn(sys.argv[1:])";
    let ended = Command::new("python3")
        .args(["-c", SPAWN, program])
        .args(args)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .await
        .expect("run python3");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}
