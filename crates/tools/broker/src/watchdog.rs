//! Kills the server when we are gone without having done so: Ctrl-C on a test run, `kill -9`, an abort.
//!
//! A shell waits on a pipe of which we hold the other end.
//! A line means that all is well; the end of the pipe, which the kernel sees to, that we are dead.
//! (Linux could do it with a flag on the child, but only through `unsafe`, and only Linux.)

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// Stands by until told to stand down.
#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// Watches over the process group `group`, from a group of its own that no Ctrl-C reaches.
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

    /// To be called when the group is gone, or about to be: its number may soon belong to others.
    pub fn stand_down(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            // If it cannot be told, it is dead and harmless already.
            let _told = pipe.write_all(b"\n");
            let _reaped = self.0.wait();
        }
    }
}
