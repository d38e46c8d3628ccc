//! The broker of a world: a child process or a container, with the same methods for both.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context as _;

use crate::docker::{ContainerGuard, Docker, Server};
use crate::world::options;

/// The panic message when a test asks a container about its cluster.
const ALONE: &str = "a broker in a container has no cluster; clusters are child processes";

/// A broker that can be stopped, killed, paused and restarted; its address on this host stays.
#[derive(Debug)]
pub enum Broker {
    /// A child process of the test.
    Child(Box<broker::Broker>),
    /// A container next to the test.
    Container(Box<Server>),
}

impl Broker {
    /// Starts a child whose store and log are in `folder`.
    pub(crate) fn child(folder: &Path) -> anyhow::Result<Self> {
        let binary = broker::find(&|_| {}).context("find nats-server")?;
        let options = options(folder);
        let broker = broker::Broker::start(&binary, options).context("start nats-server")?;
        Ok(broker.into())
    }

    /// Starts a container whose store is below `folder`.
    pub(crate) fn start_in(docker: &'static Docker, folder: &Path) -> anyhow::Result<Self> {
        let server = Server::start(docker, folder.join("broker"))?;
        Ok(Self::Container(Box::new(server)))
    }

    /// The address for the test.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// The address for the services.
    pub fn url_for_services(&self) -> String {
        match self {
            Self::Child(child) => child.url(),
            Self::Container(server) => server.inner_url(),
        }
    }

    /// The port on this host; it never changes.
    pub fn port(&self) -> u16 {
        match self {
            Self::Child(child) => child.port(),
            Self::Container(server) => server.port(),
        }
    }

    /// The name; it never changes.
    pub fn name(&self) -> &str {
        match self {
            Self::Child(child) => child.name(),
            Self::Container(server) => server.name(),
        }
    }

    /// The folder on this host with the data, in `jetstream/`.
    pub fn store(&self) -> PathBuf {
        match self {
            Self::Child(child) => child.store().to_owned(),
            Self::Container(server) => server.store().to_owned(),
        }
    }

    /// Stops the broker as an operator would.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Child(child) => child.stop().context("stop the broker"),
            Self::Container(server) => server.stop(),
        }
    }

    /// Takes a node of a cluster out of service, in order.
    pub fn retire(&mut self) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Child(child) => child.retire().context("retire the broker"),
            Self::Container(_) => panic!("{ALONE}"),
        }
    }

    /// The name of the cluster's leader, as far as this node knows.
    pub fn leader(&self) -> Option<String> {
        match self {
            Self::Child(child) => child.leader(),
            Self::Container(_) => panic!("{ALONE}"),
        }
    }

    /// Waits until a node of a cluster is up to date.
    pub fn wait_healthy(&self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.wait_healthy().context("wait for the broker"),
            Self::Container(_) => panic!("{ALONE}"),
        }
    }

    /// Kills the broker as a crash would.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Child(child) => child.kill().context("kill the broker"),
            Self::Container(server) => server.guard().kill(),
        }
    }

    /// Freezes the broker: connections stay open, requests get no answer.
    pub fn pause(&self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.pause().context("pause the broker"),
            Self::Container(server) => server.guard().pause(),
        }
    }

    pub fn resume(&self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.resume().context("resume the broker"),
            Self::Container(server) => server.guard().resume(),
        }
    }

    /// Starts the broker again on the same port and store; stops it first if it runs.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.restart().context("restart the broker"),
            Self::Container(server) => server.restart(),
        }
    }

    /// Replaces the container and its store with new, empty ones.
    pub fn replace(&mut self, docker: &'static Docker) -> anyhow::Result<()> {
        match self {
            Self::Child(_) => panic!("the broker is a child process"),
            Self::Container(server) => server.replace(docker),
        }
    }

    pub fn container(&self) -> &ContainerGuard {
        match self {
            Self::Child(_) => panic!("the broker is a child process"),
            Self::Container(server) => server.guard(),
        }
    }
}

impl From<broker::Broker> for Broker {
    fn from(broker: broker::Broker) -> Self {
        Self::Child(Box::new(broker))
    }
}
