//! Runs a command-line program in a test.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::wait::PATIENCE;

/// A running program, with pipes for its input and output. Dropping the `Tool` kills the program.
#[derive(Debug)]
pub struct Tool {
    child: Child,
}

/// The result of a program.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The part of standard output that was not read before.
    pub stdout: String,
    /// The part of standard error that was not read before.
    pub stderr: String,
}

impl Tool {
    /// Starts `program` with only the variables in `environment`.
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

    /// The process id, while the program runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Writes to standard input. Dropping the returned value closes it.
    pub async fn feed(&mut self, input: impl AsRef<[u8]>) -> ChildStdin {
        let mut stdin = self.child.stdin.take().expect("stdin");
        let written = stdin.write_all(input.as_ref()).await;
        written.expect("write to stdin");
        stdin
    }

    /// Waits for one line on standard output.
    pub async fn says(&mut self) -> String {
        line(self.child.stdout.as_mut().expect("stdout")).await
    }

    /// Waits for one line on standard error.
    pub async fn complaint(&mut self) -> String {
        line(self.child.stderr.as_mut().expect("stderr")).await
    }

    /// Reads `lines` lines of standard output, then closes it.
    pub async fn read_and_close(&mut self, lines: usize) -> Vec<String> {
        let mut read = Vec::new();
        while read.len() < lines {
            read.push(self.says().await);
        }
        drop(self.child.stdout.take());
        read
    }

    /// Waits until the program ends.
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

/// Reads one line, and no byte after it.
async fn line(from: &mut (impl AsyncRead + Unpin)) -> String {
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, from);
    let read = timeout(PATIENCE, reader.read_line(&mut line)).await;
    read.expect("in time").expect("read a line");
    line
}

/// Runs `program` on a pseudo-terminal (needs python3); returns its output.
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
