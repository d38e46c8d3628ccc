//! A world: a broker, and services that can be stopped and started.
//!
//! What it starts is in `builder`, how it is addressed in `address`, what it is asked for in
//! `shop`, and what its end asserts in `end`.

mod address;
mod builder;
mod end;
mod service;
mod shop;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::client::try_send;
use crate::docker::{Container, Docker, Turn};
use crate::process::{Address, Process};
use crate::{PATIENCE, eventually};

pub use builder::Builder;
pub(crate) use builder::options;
pub use service::Service;
pub use shop::{after, titles};

/// A broker, and services that can be stopped and started.
#[derive(Debug)]
pub struct World {
    /// The broker, to be killed and restarted; the first of a cluster.
    pub broker: Broker,
    /// The others of its cluster; none where it is alone.
    pub peers: Vec<Broker>,
    /// Where services run in containers.
    docker: Option<&'static Docker>,
    /// Of the logs, and usually of the databases.
    folder: TempDir,
    databases: PathBuf,
    /// Of all that ever ran: the same for their lives.
    addresses: BTreeMap<Service, Address>,
    /// Of the containers, in their network.
    names: BTreeMap<Service, String>,
    running: BTreeMap<Service, Process>,
    /// Where each of the broker's users has a file with the password; nobody has to log in if none.
    passwords: Option<PathBuf>,
    /// Where services reach the broker, if not directly.
    link: Option<String>,
    /// What the services log, where that is not what they log by themselves.
    filter: Option<&'static str>,
    finished: bool,
    /// The last that is dropped: the containers are gone then.
    turn: Option<Turn>,
}

impl World {
    /// Starts these services. Each listens then; it may have yet to reach the broker, and to make
    /// its stream: see [`in_touch`](Self::in_touch).
    pub async fn run_each(&mut self, services: &[Service]) {
        for service in services {
            self.run(*service).await;
        }
    }

    /// Starts all services: [`run_each`](Self::run_each).
    pub async fn run_all(&mut self) {
        self.run_each(&Service::ALL).await;
    }

    /// Waits until every service that runs has reached the broker, made its stream there, and
    /// offers what it answers over it. What a test publishes by hand before that is lost, and what
    /// it asks finds nobody.
    pub async fn in_touch(&self) {
        self.expect_all_well().await;
        for service in self.running.keys() {
            eventually("an answer to an operator", async || {
                self.ask(*service, "status", &json!({})).await
            })
            .await;
        }
    }

    /// Starts a service, where it ran before if it did.
    pub async fn run(&mut self, service: Service) {
        self.run_with(service, |_| {}).await;
    }

    /// Starts a service, its command changed by `change`: variables, more flags.
    pub async fn run_with(&mut self, service: Service, change: impl Fn(&mut Command)) {
        if let Some(process) = self.try_run_with(service, change).await {
            panic!("{} does not start:\n{}", service.name(), process.log());
        }
    }

    /// Starts a service that may end before it listens; gives it back if it did.
    pub async fn try_run_with(
        &mut self,
        service: Service,
        change: impl Fn(&mut Command),
    ) -> Option<Process> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut process = self.spawn(service, &change);
            match listening(&mut process).await {
                // The broker is away, and wants its port back: it must not be a service's now.
                Some(address) if address.http.port() == self.broker.port() => process.kill(),
                Some(address) => {
                    self.addresses.insert(service, address);
                    self.running.insert(service, process);
                    return None;
                }
                // While it was away an outgoing connection of anybody may have got its port.
                None if process.log().contains("Address already in use")
                    && Instant::now() < deadline => {}
                None => return Some(process),
            }
        }
    }

    /// Starts a service and does not wait for it: it may be meant to end at once.
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

    /// One more relay for the orders, in a process of its own.
    pub fn rival(&self) -> Process {
        let mut command = self.program("e2e", &["rival"]);
        command
            .arg("--database")
            .arg(self.database(Service::Orders));
        Process::spawn(command, self.folder.path().join("rival.log"))
    }

    /// Whether a service runs.
    pub fn runs(&self, service: Service) -> bool {
        self.running.contains_key(&service)
    }

    /// The services that were ever started, whether they run or not.
    pub fn known(&self) -> impl Iterator<Item = Service> {
        let known: Vec<Service> = self.addresses.keys().copied().collect();
        known.into_iter()
    }

    /// The process of a service.
    pub fn process(&mut self, service: Service) -> &mut Process {
        self.running.get_mut(&service).expect("it runs")
    }

    /// A service's container has come back on another port of this host: asks the daemon which,
    /// and waits until the service answers there.
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

    /// A service stands still from now on: it keeps its connections and its locks.
    pub fn pause(&self, service: Service) {
        self.running[&service].pause();
    }

    /// It goes on.
    pub fn resume(&self, service: Service) {
        self.running[&service].resume();
    }

    /// Stops a service, in order.
    pub async fn stop(&mut self, service: Service) {
        self.put_away(service, Process::stop).await;
    }

    /// Kills a service, as a crash would; one that has ended by itself is only put away.
    pub async fn kill(&mut self, service: Service) {
        self.put_away(service, Process::kill).await;
    }

    async fn put_away(&mut self, service: Service, end: fn(&mut Process)) {
        let mut process = self.running.remove(&service).expect("it runs");
        let ended = tokio::task::spawn_blocking(move || end(&mut process));
        ended.await.expect("it ends as it should");
    }

    /// Waits until a service has ended by itself, and puts it away: its process, to be asked how.
    pub async fn ended(&mut self, service: Service) -> Process {
        let mut process = self.running.remove(&service).expect("it runs");
        eventually("a service to end", || {
            std::future::ready(process.exited().ok_or_else(|| process.log()))
        })
        .await;
        process
    }
}

/// Waits until a service listens; `None` if it ends before.
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
