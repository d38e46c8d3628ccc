//! The tool as a process.

use std::process::Stdio;

use headwater_testkit::PATIENCE;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command as Process};

/// The tool as a process.
pub(crate) struct Tool {
    child: Child,
}

/// What a process left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Tool {
    pub(crate) fn start(
        args: &[impl AsRef<std::ffi::OsStr>],
        environment: &[(&str, &str)],
    ) -> Self {
        let child = Process::new(env!("CARGO_BIN_EXE_headwater"))
            .args(args)
            .env_clear()
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start the tool");
        Self { child }
    }

    /// Writes to the process's stdin, which is closed when the answer is dropped.
    pub(crate) async fn feed(&mut self, input: impl AsRef<[u8]>) -> ChildStdin {
        let mut stdin = self.child.stdin.take().expect("stdin");
        stdin
            .write_all(input.as_ref())
            .await
            .expect("write to stdin");
        stdin
    }

    /// Waits for one line on stdout.
    pub(crate) async fn says(&mut self) -> String {
        let stdout = self.child.stdout.as_mut().expect("stdout");
        let mut line = String::new();
        let read = async {
            BufReader::with_capacity(1, stdout)
                .read_line(&mut line)
                .await
        };
        tokio::time::timeout(PATIENCE, read)
            .await
            .expect("in time")
            .expect("read stdout");
        line
    }

    /// Reads so many lines of stdout, and then goes away as a reader.
    pub(crate) async fn read_and_close(&mut self, lines: usize) -> Vec<String> {
        let mut read = Vec::new();
        while read.len() < lines {
            read.push(self.says().await);
        }
        drop(self.child.stdout.take());
        read
    }

    pub(crate) async fn end(self) -> Ended {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait_with_output()).await;
        let ended = ended.expect("in time").expect("wait");
        Ended {
            code: ended.status.code(),
            stdout: String::from_utf8(ended.stdout).expect("UTF-8"),
            stderr: String::from_utf8(ended.stderr).expect("UTF-8"),
        }
    }
}
