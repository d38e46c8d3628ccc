//! A world: a broker, and services that can be stopped and started.
//!
//! `builder` starts it, `address` locates its parts, `shop` sends requests, and `end` checks it at
//! the end.

mod address;
mod builder;
mod end;
mod service;
mod shop;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::client::try_send;
use crate::docker::{Container, Docker, Turn};
use crate::eventually;
use crate::process::{Address, Process};

pub use builder::Builder;
pub(crate) use builder::options;
pub use service::{Service, UNITS};
pub use shop::{after, titles};

/// A broker, and services that can be stopped and started.
#[derive(Debug)]
pub struct World {
    /// The broker, to be killed and restarted; in a cluster, the first.
    pub broker: Broker,
    /// The other brokers of a cluster.
    pub peers: Vec<Broker>,
    /// Set if services run in containers.
    docker: Option<&'static Docker>,
    /// The folder of the logs, and usually of the databases.
    folder: TempDir,
    databases: PathBuf,
    /// The addresses of all services that ever ran; they never change.
    addresses: BTreeMap<Service, Address>,
    /// Where services listen that do not run in containers: a loopback address of this world alone,
    /// so that nobody else's listener or connection takes the port of a stopped service.
    host: Ipv4Addr,
    /// The names of the containers in their network.
    names: BTreeMap<Service, String>,
    running: BTreeMap<Service, Process>,
    /// The folder with a password file for each user, if the broker requires a login.
    passwords: Option<PathBuf>,
    /// Where services reach the broker, if not directly.
    link: Option<String>,
    /// The log filter of the services, if not the default.
    filter: Option<&'static str>,
    finished: bool,
    /// Dropped last, after the containers.
    turn: Option<Turn>,
}

impl World {
    /// Starts these services. Each one listens then, but may not have reached the broker or made
    /// its stream: see [`in_touch`](Self::in_touch).
    pub async fn run_each(&mut self, services: &[Service]) {
        for service in services {
            self.run(*service).await;
        }
    }

    pub async fn run_all(&mut self) {
        self.run_each(&Service::ALL).await;
    }

    /// Waits until every running service has reached the broker, made its stream, and answers
    /// requests over NATS. Before that, events published by a test are lost, and its requests find
    /// no responders.
    pub async fn in_touch(&self) {
        self.expect_all_well().await;
        for service in self.running.keys() {
            eventually("an answer to an operator", async || {
                self.ask(*service, "status", &json!({})).await
            })
            .await;
        }
    }

    /// Starts a service, on the same address as before.
    pub async fn run(&mut self, service: Service) {
        self.run_with(service, |_| {}).await;
    }

    /// Starts a service; `change` adds variables or flags to its command.
    pub async fn run_with(&mut self, service: Service, change: impl Fn(&mut Command)) {
        if let Some(process) = self.try_run_with(service, change).await {
            panic!("{} does not start:\n{}", service.name(), process.log());
        }
    }

    /// Starts a service that may end before it listens; returns its process if it did.
    pub async fn try_run_with(
        &mut self,
        service: Service,
        change: impl Fn(&mut Command),
    ) -> Option<Process> {
        let mut process = self.spawn(service, &change);
        let Some(address) = listening(&mut process).await else {
            return Some(process);
        };
        self.addresses.insert(service, address);
        self.running.insert(service, process);
        None
    }

    /// Starts a service without waiting for it: it may end at once.
    pub fn spawn(&self, service: Service, change: impl Fn(&mut Command)) -> Process {
        let mut command = self.command(service);
        change(&mut command);
        let log = self.log_file(service);
        let Some(docker) = self.docker else {
            return Process::spawn(command, log);
        };
        let port = self.addresses.get(&service).map_or(0, |at| at.http.port());
        let (name, folder) = (&self.names[&service], self.folder.path());
        let container = Container::start(docker, name, &command, folder, port, log);
        Process::Container(Box::new(container))
    }

    /// Starts another relay for the orders, in its own process.
    pub fn rival(&self) -> Process {
        let mut command = self.program("e2e", &["rival"]);
        command
            .arg("--database")
            .arg(self.database(Service::Orders));
        Process::spawn(command, self.folder.path().join("rival.log"))
    }

    pub fn runs(&self, service: Service) -> bool {
        self.running.contains_key(&service)
    }

    /// The services that were ever started.
    pub fn known(&self) -> impl Iterator<Item = Service> {
        let known: Vec<Service> = self.addresses.keys().copied().collect();
        known.into_iter()
    }

    pub fn process(&mut self, service: Service) -> &mut Process {
        self.running.get_mut(&service).expect("it runs")
    }

    /// Finds the new port of a service's container on this host and waits until the service answers
    /// there.
    pub async fn moved(&mut self, service: Service) {
        let address = self.process(service).container().addresses();
        self.addresses
            .insert(service, address.expect("mapped ports"));
        let client = self.client(service);
        eventually("the service to answer", || async {
            let request = client.request(reqwest::Method::GET, "/livez");
            try_send(request).await
        })
        .await;
    }

    /// Freezes a service: it keeps its connections and locks.
    pub fn pause(&self, service: Service) {
        self.running[&service].pause();
    }

    pub fn resume(&self, service: Service) {
        self.running[&service].resume();
    }

    /// Stops a service in order.
    pub async fn stop(&mut self, service: Service) {
        self.put_away(service, Process::stop).await;
    }

    /// Kills a service as a crash would; it may already have ended.
    pub async fn kill(&mut self, service: Service) {
        self.put_away(service, Process::kill).await;
    }

    async fn put_away(&mut self, service: Service, end: fn(&mut Process)) {
        let mut process = self.running.remove(&service).expect("it runs");
        let ended = tokio::task::spawn_blocking(move || end(&mut process));
        ended.await.expect("it ends as it should");
    }

    /// Waits until a service ends by itself; returns its process.
    pub async fn ended(&mut self, service: Service) -> Process {
        let mut process = self.running.remove(&service).expect("it runs");
        eventually("a service to end", || {
            std::future::ready(process.exited().ok_or_else(|| process.log()))
        })
        .await;
        process
    }
}

/// Waits until a service listens; `None` if it ends first.
async fn listening(process: &mut Process) -> Option<Address> {
    eventually("a service to listen", || {
        let seen = match (process.address(), process.exited()) {
            (Some(address), _) => Ok(Some(address)),
            (None, Some(_)) => Ok(None),
            (None, None) => Err(process.log()),
        };
        std::future::ready(seen)
    })
    .await
}
