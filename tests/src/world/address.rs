//! How programs, files, HTTP and NATS of a world are addressed.

use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::jetstream;

use super::{Service, World};
use crate::broker::Broker;
use crate::client::Client;
use crate::{docker, eventually, program};

impl World {
    /// The command that starts a service.
    pub(super) fn command(&self, service: Service) -> Command {
        let mut command = self.program(service.program(), &[]);
        if let Some(style) = service.style() {
            command.args(["--style", style]);
        } else {
            command.arg("--database").arg(self.database(service));
        }
        // Composition asks the sources there, and the order form of every style sends to orders.
        command.envs(Service::SOURCES.into_iter().filter_map(|source| {
            let variable = format!("HEADWATER_{}_URL", source.name().to_uppercase());
            Some((variable, self.url_for_services(source)?))
        }));
        if let (Some(address), None) = (self.addresses.get(&service), self.docker) {
            command.env("HEADWATER_LISTEN", address.http.to_string());
        }
        if let Some(folder) = &self.passwords {
            command.env("NATS_USER", service.name());
            command.env("NATS_PASSWORD_FILE", folder.join(service.name()));
        }
        // The name by which API composition asks it.
        let name = self.names.get(&service);
        command.envs(name.map(|name| ("HEADWATER_PUBLIC_HOST", name)));
        command
    }

    /// A command for a program that connects to the broker.
    pub(super) fn program(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        let copies = self.peers.len() + 1;
        command
            .args(args)
            .current_dir(self.folder.path())
            .args(["--nats-url", &self.nats_url_for_services()])
            .env("HEADWATER_NATS_REPLICAS", copies.to_string())
            .args(["--log-format", "json"])
            .envs(self.filter.map(|filter| ("RUST_LOG", filter)))
            .env("HEADWATER_LISTEN", self.listen(docker::HTTP))
            .env("HEADWATER_ADMIN_LISTEN", self.listen(docker::ADMIN));
        command
    }

    /// Where other services reach a service, if it has run.
    fn url_for_services(&self, service: Service) -> Option<String> {
        let address = self.addresses.get(&service)?;
        Some(match self.names.get(&service) {
            Some(name) => format!("http://{name}:{}", docker::HTTP),
            None => format!("http://{}", address.http),
        })
    }

    /// Where a service listens; in a container, at `port`.
    fn listen(&self, port: u16) -> String {
        match self.docker {
            Some(_) => format!("0.0.0.0:{port}"),
            None => format!("{}:0", self.host),
        }
    }

    /// Makes services that start from now on reach the broker at `url`, through a link.
    pub fn reach_broker_at(&mut self, url: String) {
        self.link = Some(url);
    }

    /// Keeps the folder of all databases and logs when the world ends; returns its path.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// The logs of all runs of a service: one JSON object per line.
    pub fn log(&self, service: Service) -> String {
        std::fs::read_to_string(self.log_file(service)).unwrap_or_default()
    }

    pub(super) fn log_file(&self, service: Service) -> PathBuf {
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

    /// Deletes the database of a stopped service.
    pub fn delete_database(&self, service: Service) {
        assert!(
            !self.running.contains_key(&service),
            "stop the service first"
        );
        let path = self.database(service);
        std::fs::remove_file(&path).expect("delete the database");
        let wal = path.with_extension("db-wal");
        assert!(!wal.exists(), "a WAL is left after an orderly stop");
    }

    /// A client of a service.
    pub fn client(&self, service: Service) -> Client {
        Client::at(self.addresses[&service].http)
    }

    /// A client of a service's health and metrics.
    pub fn admin(&self, service: Service) -> Client {
        Client::at(self.addresses[&service].admin)
    }

    /// The URL of the broker; for a cluster, all URLs with commas.
    pub fn nats_url(&self) -> String {
        self.nodes().map(Broker::url).collect::<Vec<_>>().join(",")
    }

    /// The URL of the broker for the services; for a cluster, all URLs with commas.
    fn nats_url_for_services(&self) -> String {
        let urls = self.nodes().map(Broker::url_for_services);
        let linked = self.link.clone();
        linked.unwrap_or_else(|| urls.collect::<Vec<_>>().join(","))
    }

    /// The broker, or all brokers of the cluster.
    pub fn nodes(&self) -> impl Iterator<Item = &Broker> {
        std::iter::once(&self.broker).chain(&self.peers)
    }

    /// The operator's name and password, if the broker requires a login.
    pub fn login(&self) -> Option<(String, String)> {
        let file = self.passwords.as_ref()?.join("operator");
        let password = std::fs::read_to_string(file).expect("a password");
        Some(("operator".to_owned(), password.trim().to_owned()))
    }

    /// A NATS connection of the test, as the operator if the broker requires a login.
    pub async fn nats(&self) -> async_nats::Client {
        let mut options = async_nats::ConnectOptions::new();
        if let Some((user, password)) = self.login() {
            options = options.user_and_password(user, password);
        }
        let url = self.nats_url();
        let servers: Vec<_> = url.split(',').collect();
        options.connect(servers).await.expect("connect to NATS")
    }

    /// The stream of a source. In a cluster, waits until it has a leader.
    pub async fn stream(&self, source: Service) -> jetstream::stream::Stream {
        let jetstream = jetstream::new(self.nats().await);
        let name = source.name().to_uppercase();
        eventually("the stream", || jetstream.get_stream(&name)).await
    }

    /// Makes the sources' streams before the services do, so that a test can delete events and
    /// purge them.
    pub async fn make_soft_streams(&self) {
        let jetstream = jetstream::new(self.nats().await);
        for source in Service::SOURCES {
            let mut settings = headwater::stream::settings(source.name(), 1);
            settings.deny_delete = false;
            settings.deny_purge = false;
            jetstream.create_stream(settings).await.expect("a stream");
        }
    }
}
