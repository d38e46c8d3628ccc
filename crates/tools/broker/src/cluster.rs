//! A cluster of three brokers with three replicas of each stream: any one of them may fail.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
};

use uuid::Uuid;

use crate::{
    deadline,
    error::{self, Error},
    member::Member,
    options::{Log, Options, Port},
    paths::Binary,
    server::Broker,
};

/// The number of brokers: with one away, the other two are still a majority.
const NODES: usize = 3;

/// How often a start is tried with other ports: a port may be taken between our check and the
/// server's start.
const STARTS_MAX: usize = 5;

/// The range of ports: below those that the kernel assigns to outgoing connections, so that a port
/// stays free while its server is away.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A cluster of three, each with its own folder: `1`, `2` and `3`.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Broker>,
}

impl Cluster {
    /// Starts three servers in folders below `options.store`, and waits until they have elected a
    /// leader, which takes a few seconds. `options.port` is ignored: each gets a free port.
    ///
    /// Errors: as for [`Broker::start`]; nothing is left running then.
    pub fn start(binary: &Binary, options: &Options) -> Result<Self, Error> {
        for _ in 1..STARTS_MAX {
            match Self::start_once(binary, options) {
                Err(Error::PortTaken { .. }) => {}
                done => return done,
            }
        }
        Self::start_once(binary, options)
    }

    fn start_once(binary: &Binary, options: &Options) -> Result<Self, Error> {
        let ports = free_ports(3 * NODES)?;
        let [clients, routes, monitors] = [0, 1, 2].map(|kind| &ports[kind * NODES..][..NODES]);
        let name = format!("headwater-{}", Uuid::now_v7());
        let mut nodes = Vec::with_capacity(NODES);
        for node in 0..NODES {
            let member = Member {
                name: name.clone(),
                port: routes[node],
                monitor: monitors[node],
                routes: routes.to_vec(),
            };
            let options = Options {
                store: options.store.join((node + 1).to_string()),
                port: Port::Fixed(clients[node]),
                member: Some(member),
                log: numbered(&options.log, node + 1),
                ..options.clone()
            };
            nodes.push(Broker::start(binary, options)?);
        }
        for node in &nodes {
            node.wait_healthy()?;
        }
        Ok(Self { nodes })
    }

    /// All URLs, separated by commas.
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(Broker::url).collect();
        urls.join(",")
    }

    /// The servers.
    pub fn nodes(&self) -> &[Broker] {
        &self.nodes
    }

    /// The servers, to kill, stop or restart them.
    pub fn nodes_mut(&mut self) -> &mut [Broker] {
        &mut self.nodes
    }

    /// The servers, each with its own owner.
    pub fn into_nodes(self) -> Vec<Broker> {
        self.nodes
    }
}

impl Broker {
    /// Whether this member reaches the cluster's leader and its streams are up to date; if not,
    /// what is missing.
    pub fn health(&self) -> Result<(), String> {
        self.member().map_or(Ok(()), Member::health)
    }

    /// The name of the cluster's leader, as far as this member knows.
    pub fn leader(&self) -> Option<String> {
        self.member()?.leader()
    }

    /// Waits until it is in good [`health`](Self::health), within [`Options::ready_within`].
    pub fn wait_healthy(&self) -> Result<(), Error> {
        let (within, mut last) = (self.ready_within(), String::new());
        let healthy = deadline::poll(within, || self.health().map_err(|why| last = why).ok());
        healthy.ok_or_else(|| Error::NotReady {
            within,
            last,
            log: self.log_tail(),
        })
    }
}

/// A separate log file for each server; a function is shared.
fn numbered(log: &Log, node: usize) -> Log {
    match log {
        Log::File(path) => {
            let mut name = path.file_stem().unwrap_or_default().to_owned();
            name.push(format!("-{node}.log"));
            Log::File(path.with_file_name(name))
        }
        other => other.clone(),
    }
}

/// Different ports on which nothing listens.
fn free_ports(count: usize) -> Result<Vec<u16>, Error> {
    let reserved: Result<Vec<_>, Error> = (0..count).map(|_| free_listener()).collect();
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    let ports = reserved?.iter().map(port).collect::<io::Result<_>>();
    ports.map_err(error::io("read", "a port"))
}

/// A listener on 127.0.0.1, on a port that the kernel assigns to no outgoing connection: once it is
/// closed, the port stays free.
///
/// Errors: no port is free.
pub fn free_listener() -> Result<TcpListener, Error> {
    let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..LOOKS_MAX {
        // The end of such an id is random.
        let random = Uuid::now_v7().as_u128() % PORTS.len() as u128;
        let port = PORTS.start + u16::try_from(random).unwrap_or_default();
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(error) => refused = error,
        }
    }
    Err(error::io("find", "a free port")(refused))
}

/// How many ports are tried.
const LOOKS_MAX: usize = 1_000;
