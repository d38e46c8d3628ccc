//! How a world starts.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use broker::{Cluster, Log, Options};
use tempfile::TempDir;

use super::{Service, World};
use crate::PATIENCE;
use crate::broker::Broker;
use crate::docker::{Docker, Turn};

/// A world to be started, with running brokers.
#[derive(Debug)]
#[must_use]
pub struct Builder {
    world: World,
    services: &'static [Service],
}

impl World {
    /// Starts all services and waits until each has reached the broker.
    pub async fn start() -> Self {
        Self::anywhere().start().await
    }

    /// A world in containers if Docker answers, else of child processes.
    pub fn anywhere() -> Builder {
        Docker::chosen().map_or_else(Self::on_host, Self::in_containers)
    }

    /// A world of child processes even if Docker answers: for tests that inspect processes from the
    /// host, trace them, or put something between them.
    pub fn on_host() -> Builder {
        let folder = TempDir::new().expect("make a folder");
        let broker = Broker::child(folder.path()).expect("start the broker");
        Builder::of([broker], folder)
    }

    /// A world in containers.
    pub fn in_containers(docker: &'static Docker) -> Builder {
        let turn = Turn::take();
        let folder = TempDir::new().expect("make a folder");
        let broker = Broker::start_in(docker, folder.path()).expect("start the broker");
        let mut builder = Builder::of([broker], folder);
        let all = Service::SOURCES.into_iter().chain(Service::STYLES);
        builder.world.names = all.map(|one| (one, docker.name(one.name()))).collect();
        builder.world.docker = Some(docker);
        builder.world.turn = Some(turn);
        builder
    }

    /// A world on a cluster of three brokers, each with a replica of every stream.
    pub fn on_three_brokers() -> Builder {
        let folder = TempDir::new().expect("make a folder");
        let binary = broker::find(&|_| {}).expect("find nats-server");
        let cluster = Cluster::start(&binary, &options(folder.path()));
        Self::on(
            cluster.expect("start three nats-servers").into_nodes(),
            folder,
        )
    }

    /// A world of child processes on running brokers, with its files in `folder`.
    pub fn on(nodes: impl IntoIterator<Item = broker::Broker>, folder: TempDir) -> Builder {
        Builder::of(nodes.into_iter().map(Broker::from), folder)
    }
}

impl Builder {
    fn of(nodes: impl IntoIterator<Item = Broker>, folder: TempDir) -> Self {
        let mut nodes = nodes.into_iter();
        let world = World {
            broker: nodes.next().expect("a broker"),
            peers: nodes.collect(),
            docker: None,
            databases: folder.path().to_owned(),
            folder,
            addresses: [].into(),
            host: own_loopback(),
            names: [].into(),
            running: [].into(),
            passwords: None,
            link: None,
            filter: None,
            finished: false,
            turn: None,
        };
        Self {
            world,
            services: &Service::ALL,
        }
    }

    /// Puts the databases into `folder`, separate from the logs.
    pub fn databases_in(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.world.databases);
        self
    }

    /// Makes each service log in with its name and its password in `folder`.
    pub fn logging_in(mut self, folder: PathBuf) -> Self {
        self.world.passwords = Some(folder);
        self
    }

    /// Makes the services log at debug level.
    pub fn logging_everything(mut self) -> Self {
        self.world.filter = Some("info,headwater=debug,async_nats=off");
        self
    }

    /// Starts these services instead of all four.
    pub fn of_services(mut self, services: &'static [Service]) -> Self {
        self.services = services;
        self
    }

    /// The world, without any service yet.
    pub fn empty(self) -> World {
        self.world
    }

    /// Starts the services and waits until each has reached the broker.
    pub async fn start(self) -> World {
        let Self {
            mut world,
            services,
        } = self;
        world.run_each(services).await;
        world.in_touch().await;
        world
    }
}

/// The options of a world's broker, or of each in a cluster.
pub(crate) fn options(folder: &Path) -> Options {
    Options {
        log: Log::File(folder.join("broker.log")),
        ready_within: PATIENCE,
        ..Options::new(folder.join("broker"))
    }
}

/// An address of 127.0.0.0/8 that no other running world uses: from the process and a counter.
fn own_loopback() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(2);
    let [.., high, low] = std::process::id().to_be_bytes();
    let world = NEXT.fetch_add(1, Ordering::Relaxed);
    Ipv4Addr::new(127, high, low, world)
}
