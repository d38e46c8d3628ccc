//! nats-server in a container, from the shipped image.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use testcontainers::ImageExt as _;
use testcontainers::core::{Healthcheck, Mount};

use super::container::{ContainerGuard, ourselves, published};
use super::{Docker, image};
use crate::PATIENCE;

/// The port on which nats-server listens in its container.
const NATS: u16 = 4222;

/// How long an orderly stop may take before the server is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A broker whose address on this host never changes.
#[derive(Debug)]
pub struct Server {
    guard: ContainerGuard,
    name: String,
    port: u16,
    store: PathBuf,
}

impl Server {
    /// Starts a server whose store is in the folder `store`, and waits until JetStream answers.
    pub(crate) fn start(docker: &'static Docker, store: PathBuf) -> anyhow::Result<Self> {
        let (name, port) = (docker.name("broker"), free_port()?);
        let server = Self {
            guard: start_container(docker, &name, &store, port)?,
            name,
            port,
            store,
        };
        server.ready()?;
        Ok(server)
    }

    /// Removes the container and its store, and starts another with the same name and an empty
    /// store.
    pub(crate) fn replace(&mut self, docker: &'static Docker) -> anyhow::Result<()> {
        self.guard.remove();
        std::fs::remove_dir_all(&self.store).context("remove the store")?;
        self.guard = start_container(docker, &self.name, &self.store, self.port)?;
        self.ready()
    }

    pub(crate) fn guard(&self) -> &ContainerGuard {
        &self.guard
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn store(&self) -> &Path {
        &self.store
    }

    /// The address for other containers.
    pub(crate) fn inner_url(&self) -> String {
        format!("nats://{}:{NATS}", self.name)
    }

    /// Stops the server in order; resumes it first if it is paused.
    pub(crate) fn stop(&self) -> anyhow::Result<ExitStatus> {
        // The daemon refuses this if the server is not paused.
        let _ = self.guard.resume();
        self.guard.stop(STOP_WITHIN)
    }

    /// Starts the server again; stops it first if it runs.
    pub(crate) fn restart(&self) -> anyhow::Result<()> {
        if self.guard.exited().is_none() {
            self.stop()?;
        }
        let deadline = Instant::now() + PATIENCE;
        // Meanwhile, an outgoing connection may have taken its port.
        while let Err(error) = self.guard.start_again() {
            anyhow::ensure!(Instant::now() < deadline, "{error:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.ready()
    }

    /// Waits until the server sends its INFO with JetStream; until then, only Docker's proxy
    /// listens.
    fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let info = introduction(self.port).unwrap_or_default();
            if info.starts_with("INFO ") && info.contains("\"jetstream\":true") {
                return Ok(());
            }
            let log = || format!("the broker is not ready:\n{}", self.guard.log_tail());
            let waits = self.guard.exited().is_none() && Instant::now() < deadline;
            anyhow::ensure!(waits, log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn start_container(
    docker: &'static Docker,
    name: &str,
    store: &Path,
    port: u16,
) -> anyhow::Result<ContainerGuard> {
    std::fs::create_dir_all(store).context("make a folder for the broker")?;
    let place = store.to_str().context("a path in UTF-8")?;
    let request = || {
        let request = image::server(docker.network())
            .with_mount(Mount::bind_mount(place, "/data"))
            .with_user(ourselves())
            .with_health_check(Healthcheck::none());
        published(request, [(NATS, port)])
    };
    ContainerGuard::start(docker, name, request).context("start the broker")
}

fn introduction(port: u16) -> std::io::Result<String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// A port that is free now.
fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}
