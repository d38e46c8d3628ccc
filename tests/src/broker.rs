//! The broker of a world, a child or a container, with the same words for both.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context as _;

use crate::docker::{Docker, Held, Server};
use crate::world::options;

/// What a test did wrong that asks a container how its cluster is.
const ALONE: &str = "a broker in a container is alone; clusters are child processes";

/// A broker that can be stopped, killed, paused and started again, at one address on this host.
#[derive(Debug)]
pub enum Broker {
    /// A child process of the test.
    Child(Box<broker::Broker>),
    /// A container beside the test.
    Container(Box<Server>),
}

impl Broker {
    /// Starts a child whose store, and log, are in `folder`.
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

    /// Its address for the test.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port())
    }

    /// Its address for the services.
    pub fn url_for_services(&self) -> String {
        match self {
            Self::Child(child) => child.url(),
            Self::Container(server) => server.inner_url(),
        }
    }

    /// Its port on this host, the same for its life.
    pub fn port(&self) -> u16 {
        match self {
            Self::Child(child) => child.port(),
            Self::Container(server) => server.port(),
        }
    }

    /// Its name, the same for its life.
    pub fn name(&self) -> &str {
        match self {
            Self::Child(child) => child.name(),
            Self::Container(server) => server.name(),
        }
    }

    /// The folder on this host that has its data, in `jetstream/`.
    pub fn store(&self) -> PathBuf {
        match self {
            Self::Child(child) => child.store().to_owned(),
            Self::Container(server) => server.store().to_owned(),
        }
    }

    /// Stops it as an operator would.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Child(child) => child.stop().context("stop the broker"),
            Self::Container(server) => server.stop(),
        }
    }

    /// Takes one of a cluster out of service, in order.
    pub fn retire(&mut self) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Child(child) => child.retire().context("retire the broker"),
            Self::Container(_) => panic!("{ALONE}"),
        }
    }

    /// The name of the one that leads the cluster, as far as it knows.
    pub fn leader(&self) -> Option<String> {
        match self {
            Self::Child(child) => child.leader(),
            Self::Container(_) => panic!("{ALONE}"),
        }
    }

    /// Waits until one of a cluster has all that it should.
    pub fn wait_healthy(&self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.wait_healthy().context("wait for the broker"),
            Self::Container(_) => panic!("{ALONE}"),
        }
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        match self {
            Self::Child(child) => child.kill().context("kill the broker"),
            Self::Container(server) => server.held().kill(),
        }
    }

    /// It stands still: connections stay open, nothing is answered.
    pub fn pause(&self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.pause().context("pause the broker"),
            Self::Container(server) => server.held().pause(),
        }
    }

    /// It goes on.
    pub fn resume(&self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.resume().context("resume the broker"),
            Self::Container(server) => server.held().resume(),
        }
    }

    /// Starts it again on the same port and store; one that still runs is stopped first.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Child(child) => child.restart().context("restart the broker"),
            Self::Container(server) => server.restart(),
        }
    }

    /// Its container and its store are gone; another takes its place, with nothing in it.
    pub fn replace(&mut self, docker: &'static Docker) -> anyhow::Result<()> {
        match self {
            Self::Child(_) => panic!("it is a child process"),
            Self::Container(server) => server.replace(docker),
        }
    }

    /// The container in which it runs.
    pub fn container(&self) -> &Held {
        match self {
            Self::Child(_) => panic!("it is a child process"),
            Self::Container(server) => server.held(),
        }
    }
}

impl From<broker::Broker> for Broker {
    fn from(broker: broker::Broker) -> Self {
        Self::Child(Box::new(broker))
    }
}
