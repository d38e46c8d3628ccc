//! All four services and a broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use async_nats::jetstream;
use broker::{Cluster, Log, Options};
use headwater::Positions;
use purchases::Style;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::client::{Client, Reply, try_send};
use crate::docker::{self, Container, Docker, Turn};
use crate::process::{self, Process};
use crate::{PATIENCE, eventually};

/// How much of each service's log a failed test shows.
const LINES_SHOWN: usize = 12;

/// One of the four services; the query service in one of its styles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Source of users.
    Users,
    /// Source of products.
    Products,
    /// Source of orders.
    Orders,
    /// The query service, with its own copy.
    Purchases,
    /// The query service that asks over HTTP.
    Composition,
    /// The query service that asks over the bus.
    Inquiry,
}

impl Service {
    /// All that run by default.
    pub const ALL: [Self; 4] = [Self::Users, Self::Products, Self::Orders, Self::Purchases];

    /// Those that publish events.
    pub const SOURCES: [Self; 3] = [Self::Users, Self::Products, Self::Orders];

    /// The query service in all its styles.
    pub const STYLES: [Self; 3] = [Self::Purchases, Self::Composition, Self::Inquiry];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => users::NAME,
            Self::Products => products::NAME,
            Self::Orders => orders::NAME,
            Self::Purchases => Style::Replica.service(),
            Self::Composition => Style::Composition.service(),
            Self::Inquiry => Style::Inquiry.service(),
        }
    }
}

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
    addresses: BTreeMap<Service, SocketAddr>,
    /// Of health and metrics.
    admins: BTreeMap<Service, SocketAddr>,
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
    /// All services on a running broker, each in touch with it.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start() -> Self {
        let mut world = Self::empty();
        world.run_all().await;
        world.in_touch().await;
        world
    }

    /// Starts all services. Each listens then; it may have yet to reach the broker, and to make
    /// its stream: see [`in_touch`](Self::in_touch).
    ///
    /// # Panics
    /// When one does not start.
    pub async fn run_all(&mut self) {
        for service in Service::ALL {
            self.run(service).await;
        }
    }

    /// Waits until every service that runs has reached the broker, made its stream there, and
    /// offers what it answers over it. What a test publishes by hand before that is lost, and what
    /// it asks finds nobody.
    ///
    /// # Panics
    /// When one does not get there.
    pub async fn in_touch(&self) {
        self.expect_all_well().await;
        let client = self.nats().await;
        for service in self.running.keys() {
            let subject = format!("headwater.{}.status", service.name());
            eventually("an answer to an operator", || {
                client.request(subject.clone(), "".into())
            })
            .await;
        }
    }

    /// All services on a running broker, as child processes also where there is Docker: for tests
    /// that look at processes from the host, trace them, or put something of theirs between them.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start_on_host() -> Self {
        let mut world = Self::empty_on_host();
        world.run_all().await;
        world.in_touch().await;
        world
    }

    /// A running broker, and no service yet.
    ///
    /// # Panics
    /// When the broker does not start.
    pub fn empty() -> Self {
        match Docker::chosen() {
            Some(docker) => Self::empty_in(docker),
            None => Self::empty_on_host(),
        }
    }

    /// [`empty`](Self::empty), as child processes also where there is Docker.
    ///
    /// # Panics
    /// When the broker does not start.
    pub fn empty_on_host() -> Self {
        let folder = TempDir::new().expect("make a folder");
        let broker = Broker::child(folder.path()).expect("start the broker");
        let databases = folder.path().to_owned();
        Self::placed(broker, None, databases, folder)
    }

    /// [`empty`](Self::empty), in containers.
    ///
    /// # Panics
    /// When the broker does not start.
    pub fn empty_in(docker: &'static Docker) -> Self {
        let turn = Turn::take();
        let folder = TempDir::new().expect("make a folder");
        let broker = Broker::start_in(docker, folder.path()).expect("start the broker");
        let databases = folder.path().to_owned();
        let mut world = Self::placed(broker, Some(docker), databases, folder);
        world.turn = Some(turn);
        world
    }

    /// A running cluster of three brokers, each with a copy of every stream, and no service yet.
    ///
    /// # Panics
    /// When a broker does not start.
    pub fn clustered() -> Self {
        let folder = TempDir::new().expect("make a folder");
        let binary = broker::find(&|_| {}).expect("find nats-server");
        let cluster =
            Cluster::start(&binary, &options(folder.path())).expect("start three nats-servers");
        Self::owning(cluster.into_nodes(), folder)
    }

    /// Brokers that run, with all that is theirs in `folder`.
    pub(crate) fn owning(nodes: Vec<broker::Broker>, folder: TempDir) -> Self {
        let databases = folder.path().to_owned();
        let mut nodes = nodes.into_iter().map(Broker::from);
        let broker = nodes.next().expect("a broker");
        let mut world = Self::placed(broker, None, databases, folder);
        world.peers = nodes.collect();
        world
    }

    /// A broker that runs, and no service yet; their databases are to be in `databases`. On the
    /// host, as the broker is.
    ///
    /// # Panics
    /// When there can be no folder for the logs.
    pub fn on(broker: broker::Broker, databases: &Path) -> Self {
        let folder = TempDir::new().expect("make a folder");
        Self::placed(broker.into(), None, databases.to_owned(), folder)
    }

    /// The services started from now on log in, each with its own name and the password that
    /// `folder` has for it.
    pub fn log_in(&mut self, folder: PathBuf) {
        self.passwords = Some(folder);
    }

    fn placed(
        broker: Broker,
        docker: Option<&'static Docker>,
        databases: PathBuf,
        folder: TempDir,
    ) -> Self {
        let names = docker.into_iter().flat_map(|docker| {
            let named = |service: Service| (service, docker.name(service.name()));
            Service::SOURCES
                .into_iter()
                .chain(Service::STYLES)
                .map(named)
        });
        Self {
            names: names.collect(),
            broker,
            peers: Vec::new(),
            docker,
            folder,
            databases,
            addresses: BTreeMap::new(),
            admins: BTreeMap::new(),
            running: BTreeMap::new(),
            passwords: None,
            link: None,
            filter: None,
            finished: false,
            turn: None,
        }
    }

    /// The services started from now on reach the broker at `url`: through a link.
    pub fn reach_broker_at(&mut self, url: String) {
        self.link = Some(url);
    }

    /// The services started from now on tell all that they do.
    pub fn log_everything(&mut self) {
        self.filter = Some("info,headwater=debug,async_nats=off");
    }

    /// Leaves the folder of all databases and logs when the world ends; gives where it is.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// Starts a service, where it ran before if it did.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn run(&mut self, service: Service) {
        self.run_with(service, |_| {}).await;
    }

    /// Starts a service, its command changed by `change`: variables, more flags.
    ///
    /// # Panics
    /// When it does not start.
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
                Some(address) if address.port() == self.broker.port() => process.kill(),
                Some(address) => {
                    self.addresses.insert(service, address);
                    self.admins
                        .extend(process.admin().map(|admin| (service, admin)));
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
        let mut command = match service {
            Service::Composition => self.asking("composition"),
            Service::Inquiry => self.asking("inquiry"),
            service => self.command(service.name(), service),
        };
        let address = self.addresses.get(&service);
        if let (Some(address), None) = (address, self.docker) {
            command.env("HEADWATER_LISTEN", address.to_string());
        }
        if let Some(folder) = &self.passwords {
            let file = folder.join(service.name());
            command.env("NATS_USER", service.name());
            command.env("NATS_PASSWORD_FILE", file);
        }
        change(&mut command);
        let log = self.log_file(service);
        let Some(docker) = self.docker else {
            return Process::spawn(command, log);
        };
        let port = address.map_or(0, SocketAddr::port);
        let name = &self.names[&service];
        // By which composition asks for it.
        command.env("HEADWATER_PUBLIC_HOST", name);
        let folder = self.folder.path();
        let container = Container::start(docker, name, &command, folder, port, log);
        Process::Container(Box::new(container))
    }

    /// One more relay for the orders, in a process of its own.
    pub fn rival(&self) -> Process {
        let command = self.command("rival-orders", Service::Orders);
        Process::spawn(command, self.folder.path().join("rival.log"))
    }

    /// A query service that asks the sources where they ran last.
    fn asking(&self, style: &str) -> Command {
        let mut command = self.program("purchases");
        command.args(["--style", style]);
        for source in Service::SOURCES {
            if let Some(url) = self.url_for_services(source) {
                let variable = format!("HEADWATER_{}_URL", source.name().to_uppercase());
                command.env(variable, url);
            }
        }
        command
    }

    /// Where other services reach a service, if it ran.
    fn url_for_services(&self, service: Service) -> Option<String> {
        let address = self.addresses.get(&service)?;
        Some(match self.docker {
            Some(_) => format!("http://{}:{}", self.names[&service], docker::HTTP),
            None => format!("http://{address}"),
        })
    }

    fn command(&self, program: &str, service: Service) -> Command {
        let mut command = self.program(program);
        command.arg("--database").arg(self.database(service));
        command
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(process::program("shop"));
        let copies = self.peers.len() + 1;
        command
            .arg(name)
            .current_dir(self.folder.path())
            .args(["--nats-url", &self.nats_url_for_services()])
            .env("HEADWATER_NATS_REPLICAS", copies.to_string())
            .args(["--log-format", "json"])
            .envs(self.filter.map(|filter| ("RUST_LOG", filter)))
            .env("HEADWATER_LISTEN", self.listen(docker::HTTP))
            .env("HEADWATER_ADMIN_LISTEN", self.listen(docker::ADMIN));
        command
    }

    /// Where a service listens, at this port in a container.
    fn listen(&self, port: u16) -> String {
        match self.docker {
            Some(_) => format!("0.0.0.0:{port}"),
            None => "127.0.0.1:0".to_owned(),
        }
    }

    /// The process of a service.
    ///
    /// # Panics
    /// When it does not run.
    pub fn process(&mut self, service: Service) -> &mut Process {
        self.running.get_mut(&service).expect("it runs")
    }

    /// A service's container has come back on another port of this host: asks the daemon which,
    /// and waits until the service answers there.
    ///
    /// # Panics
    /// When it runs in none, or does not answer.
    pub async fn moved(&mut self, service: Service) {
        let address = self.process(service).container().address(docker::HTTP);
        let address = address.expect("a mapped port");
        self.addresses.insert(service, address);
        let admin = self.process(service).container().address(docker::ADMIN);
        self.admins.insert(service, admin.expect("a mapped port"));
        let client = self.client(service);
        eventually("the service to answer", || async {
            let request = client.request(reqwest::Method::GET, "/livez");
            try_send(request).await
        })
        .await;
    }

    /// A service stands still from now on: it keeps its connections and its locks.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pause(&self, service: Service) {
        self.running[&service].pause();
    }

    /// It goes on.
    ///
    /// # Panics
    /// When it does not run.
    pub fn resume(&self, service: Service) {
        self.running[&service].resume();
    }

    /// Stops a service, in order.
    ///
    /// # Panics
    /// When it does not run, or ends with an error.
    pub async fn stop(&mut self, service: Service) {
        let mut process = self.running.remove(&service).expect("it runs");
        let stopped = tokio::task::spawn_blocking(move || process.stop());
        stopped.await.expect("an orderly end");
    }

    /// Kills a service, as a crash would; one that has ended by itself is only put away.
    ///
    /// # Panics
    /// When it was not started.
    pub async fn kill(&mut self, service: Service) {
        let mut process = self.running.remove(&service).expect("it runs");
        let killed = tokio::task::spawn_blocking(move || process.kill());
        killed.await.expect("it is gone");
    }

    /// Waits until a service has ended by itself, and puts it away: its process, to be asked how.
    ///
    /// # Panics
    /// When it was not started, or runs on.
    pub async fn ended(&mut self, service: Service) -> Process {
        let mut process = self.running.remove(&service).expect("it runs");
        eventually("a service to end", || {
            std::future::ready(process.exited().ok_or_else(|| process.log()))
        })
        .await;
        process
    }

    /// What all runs of a service have logged: one JSON object a line.
    pub fn log(&self, service: Service) -> String {
        std::fs::read_to_string(self.log_file(service)).unwrap_or_default()
    }

    fn log_file(&self, service: Service) -> PathBuf {
        self.folder.path().join(format!("{}.log", service.name()))
    }

    /// The folder of all databases and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A service's database file.
    pub fn database(&self, service: Service) -> PathBuf {
        self.databases.join(format!("{}.db", service.name()))
    }

    /// Deletes a stopped service's database.
    ///
    /// # Panics
    /// When the service runs, or its file is not there.
    pub fn delete_database(&self, service: Service) {
        assert!(!self.running.contains_key(&service), "stop it first");
        let path = self.database(service);
        std::fs::remove_file(&path).expect("delete the database");
        let wal = format!("{}-wal", path.display());
        assert!(
            !std::path::Path::new(&wal).exists(),
            "closed in order, it has no WAL"
        );
    }

    /// A client of a service.
    pub fn client(&self, service: Service) -> Client {
        Client::new(format!("http://{}", self.addresses[&service]))
    }

    /// A client of a service's health and metrics.
    ///
    /// # Panics
    /// When it never ran.
    pub fn admin(&self, service: Service) -> Client {
        Client::at(self.admins[&service])
    }

    /// Registers a user.
    pub async fn user(&self, name: &str) -> Reply {
        let email = format!("{name}@example.com");
        let body = json!({ "name": name, "email": email });
        self.client(Service::Users).create("/users", &body).await
    }

    /// Creates a product.
    pub async fn product(&self, title: &str) -> Reply {
        let image = format!("https://example.com/{title}.png");
        let body = json!({ "title": title, "image": image });
        self.client(Service::Products)
            .create("/products", &body)
            .await
    }

    /// Places an order for what may have been made a moment ago: `after` has the positions.
    pub async fn order(&self, user: &Reply, products: &[&Reply]) -> Reply {
        let ids: Vec<String> = products.iter().map(|product| product.id()).collect();
        let replies: Vec<&Reply> = products.iter().copied().chain([user]).collect();
        let path = format!("/orders?after={}", after(&replies));
        let body = json!({ "user_id": user.id(), "product_ids": ids });
        self.client(Service::Orders).create(&path, &body).await
    }

    /// What a user ordered, as of `after`, from the query service with its own copy.
    pub async fn purchases(&self, user: &str, after: &str) -> Reply {
        self.purchases_by(Service::Purchases, user, after).await
    }

    /// The titles that a user ordered, sorted, once `purchases` has everything that was written.
    pub async fn titles(&self, user: &str) -> Vec<String> {
        self.caught_up().await;
        let reply = self.purchases(user, "").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        titles(&reply.json)
    }

    /// How far the outboxes of the sources that run are, from their operator endpoints.
    pub async fn heads(&self) -> Positions {
        let client = self.nats().await;
        let mut heads = Positions::default();
        for source in Service::SOURCES {
            if self.running.contains_key(&source) {
                let subject = format!("headwater.{}.status", source.name());
                let head = eventually("a status", || async {
                    let reply = client.request(subject.clone(), "".into()).await;
                    let status: Value =
                        reply.map_err(|error| error.to_string()).and_then(|reply| {
                            serde_json::from_slice(&reply.payload).map_err(|e| e.to_string())
                        })?;
                    status["head"].as_u64().ok_or_else(|| status.to_string())
                })
                .await;
                heads.0.insert(source.name().to_owned(), head);
            }
        }
        heads
    }

    /// Waits until `purchases` has applied everything that was written.
    pub async fn caught_up(&self) {
        let heads = self.heads().await.to_string();
        let nobody = uuid::Uuid::nil().to_string();
        eventually("purchases to catch up", || async {
            let reply = self.purchases(&nobody, &heads).await;
            if reply.status == 404 {
                Ok(())
            } else {
                Err(reply.text)
            }
        })
        .await;
    }

    /// Where the broker is; all of a cluster, with commas.
    pub fn nats_url(&self) -> String {
        let urls: Vec<_> = self.nodes().map(Broker::url).collect();
        urls.join(",")
    }

    /// Where the services find the broker; all of a cluster, with commas.
    fn nats_url_for_services(&self) -> String {
        if let Some(link) = &self.link {
            return link.clone();
        }
        let urls: Vec<_> = self.nodes().map(Broker::url_for_services).collect();
        urls.join(",")
    }

    /// The broker, or all of the cluster.
    pub fn nodes(&self) -> impl Iterator<Item = &Broker> {
        std::iter::once(&self.broker).chain(&self.peers)
    }

    /// The operator's name and password, where one has to log in.
    ///
    /// # Panics
    /// When there is no password.
    pub fn login(&self) -> Option<(String, String)> {
        let file = self.passwords.as_ref()?.join("operator");
        let password = std::fs::read_to_string(file).expect("a password");
        Some(("operator".to_owned(), password.trim().to_owned()))
    }

    /// A NATS connection of the test's own, as the operator where one has to log in.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub async fn nats(&self) -> async_nats::Client {
        let mut options = async_nats::ConnectOptions::new();
        if let Some((user, password)) = self.login() {
            options = options.user_and_password(user, password);
        }
        let url = self.nats_url();
        let servers: Vec<_> = url.split(',').collect();
        options.connect(servers).await.expect("connect to NATS")
    }

    /// A source's stream; where three brokers keep it, once one of them leads it.
    ///
    /// # Panics
    /// When it is not there.
    pub async fn stream(&self, source: Service) -> jetstream::stream::Stream {
        let jetstream = jetstream::new(self.nats().await);
        let name = source.name().to_uppercase();
        eventually("the stream", || jetstream.get_stream(&name)).await
    }

    /// Makes the sources' streams before the services do, so that events can be deleted from
    /// them and they can be purged.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub async fn make_soft_streams(&self) {
        let jetstream = jetstream::new(self.nats().await);
        for source in Service::SOURCES {
            let mut settings = headwater::stream::settings(source.name(), 1);
            settings.deny_delete = false;
            settings.deny_purge = false;
            jetstream.create_stream(settings).await.expect("a stream");
        }
    }

    /// Stops everything, after checking that nothing is left undone: every part of every service
    /// is well, and every outbox is in its stream.
    ///
    /// # Panics
    /// When something is left.
    pub async fn finish(mut self) {
        self.caught_up().await;
        self.expect_all_well().await;
        while let Some((service, _)) = self.running.last_key_value() {
            let service = *service;
            self.stop(service).await;
        }
        self.finished = true;
    }

    /// Kills everything and looks at nothing: what is wrong is known.
    pub fn abandon(&mut self) {
        self.running.clear();
        self.finished = true;
    }

    async fn expect_all_well(&self) {
        for service in self.running.keys() {
            self.expect_well(*service).await;
        }
    }

    /// Waits until every part of the service says that it is well. A parked event is one that
    /// does not.
    pub async fn expect_well(&self, service: Service) {
        let client = self.client(service);
        eventually("every part to be well", || async {
            let parts = client.get("/readyz?verbose").await.json;
            let all = parts.as_object().into_iter().flatten();
            if all.clone().count() > 0 && all.clone().all(|(_, part)| part["state"] == "ok") {
                Ok(())
            } else {
                Err(parts.to_string())
            }
        })
        .await;
    }
}

impl Drop for World {
    /// Where the test failed, says what the services logged last.
    #[expect(clippy::print_stderr, reason = "what a failed test has to say")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for service in self.addresses.keys() {
                let log = self.log(*service);
                let lines: Vec<_> = log.lines().rev().take(LINES_SHOWN).collect();
                for line in lines.iter().rev() {
                    eprintln!("{}: {line}", service.name());
                }
            }
        } else {
            assert!(self.finished, "end the test with world.finish()");
        }
    }
}

/// How the broker of a world runs, or each of a cluster.
pub(crate) fn options(folder: &Path) -> Options {
    Options {
        log: Log::File(folder.join("broker.log")),
        ready_within: PATIENCE,
        ..Options::new(folder.join("broker"))
    }
}

/// Waits until a service listens; `None` if it ends before.
async fn listening(process: &mut Process) -> Option<SocketAddr> {
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

/// The positions of some writes, for `?after=`.
pub fn after(replies: &[&Reply]) -> String {
    let positions: Vec<&str> = replies.iter().map(|reply| reply.position()).collect();
    positions.join(",")
}

/// The titles in an answer of `purchases`, sorted.
pub fn titles(answer: &Value) -> Vec<String> {
    let purchases = answer["purchases"].as_array().into_iter().flatten();
    let mut titles: Vec<String> = purchases
        .map(|purchase| purchase["title"].as_str().unwrap_or("?").to_owned())
        .collect();
    titles.sort();
    titles
}
