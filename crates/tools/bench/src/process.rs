//! A service as a child process, from the binary that operators run: its memory can be read, and it
//! shares no runtime with the load.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use broker::{Child, Log, Tail};
use serde_json::Value;

use crate::connection::Connection;

/// How long a service may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(5);

/// A listening process; killed on drop, and by its watchdog if this process is killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
    pub(crate) address: SocketAddr,
    /// The address for health and metrics.
    pub(crate) admin: SocketAddr,
}

impl Process {
    /// Starts `program`, which logs to the file `log`, and waits until it is ready.
    pub(crate) async fn start(
        program: &Path,
        arguments: &[String],
        log: PathBuf,
    ) -> anyhow::Result<Self> {
        let failed = || format!("start {}", program.display());
        let mut command = Command::new(program);
        // As in the units, the images and `cargo dev`.
        command.env("MALLOC_MMAP_THRESHOLD_", "131072");
        command.args(arguments).stdin(Stdio::null());
        let child = Child::spawn(
            "a service",
            command,
            &Log::File(log.clone()),
            &Tail::default(),
        )?;
        let mut process = Self {
            child,
            log,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        process.wait_until_ready().await.with_context(failed)?;
        Ok(process)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(address) = address(&self.log(), "address") {
                self.address = address;
                // A program that is not one of our services has no admin address.
                self.admin = self::address(&self.log(), "admin").unwrap_or(address);
                let mut connection = Connection::open(address).await?;
                if connection.get("/readyz").await.is_ok() {
                    return Ok(());
                }
            }
            if let Some(status) = self.child.wait(Duration::ZERO)? {
                bail!("the process ended with {status}:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!(
                    "the process is not ready after {READY_WITHIN:?}:\n{}",
                    self.log()
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its resident memory now, in MiB.
    pub(crate) fn memory_mib(&self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// Its highest resident memory, in MiB.
    pub(crate) fn peak_mib(&self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .context("read the status of a process")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.map(|line| line.trim().trim_end_matches(" kB"));
        let kib: u32 = kib.context("the line is missing in its status")?.parse()?;
        Ok(f64::from(kib) / 1024.0)
    }
}

/// The address in the log line `listening`.
fn address(log: &str, which: &str) -> Option<SocketAddr> {
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.find(|line| line["message"] == "listening")?[which]
        .as_str()?
        .parse()
        .ok()
}
