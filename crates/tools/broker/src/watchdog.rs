//! Kills the server if we end without doing so: Ctrl-C on a test run, `kill -9`, an abort.
//!
//! A shell reads from a pipe whose other end we hold. A line means that the server has been
//! stopped; the end of the pipe, which the kernel closes, means that we are dead. (On Linux, a flag
//! on the child would do, but setting it needs `unsafe`.)

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// Waits until it is dismissed, or kills.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Watches the process group `group`, from a separate group that no Ctrl-C reaches.
    pub fn over(group: u32) -> io::Result<Self> {
        Command::new("/bin/sh")
            .args([
                "-c",
                "read line || kill -s KILL -- \"-$1\"",
                "watchdog",
                &group.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(Self)
    }

    /// Dismisses it. Call this when the group has ended or is about to: its id may be reused.
    pub fn stand_down(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // If the write fails, the watchdog is dead and harmless.
            let _sent = pipe.write_all(b"\n");
            let _reaped = self.0.wait();
        }
    }
}
