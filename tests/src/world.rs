//! All four services and a broker.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use async_nats::jetstream;
use broker::Broker;
use clap::Parser as _;
use headwater::Positions;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::client::{Client, Reply};
use crate::eventually;

/// One of the four services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Source of users.
    Users,
    /// Source of products.
    Products,
    /// Source of orders.
    Orders,
    /// The query service.
    Purchases,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Users, Self::Products, Self::Orders, Self::Purchases];

    /// Those that publish events.
    pub const SOURCES: [Self; 3] = [Self::Users, Self::Products, Self::Orders];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Users => users::NAME,
            Self::Products => products::NAME,
            Self::Orders => orders::NAME,
            Self::Purchases => purchases::NAME,
        }
    }
}

/// A broker, and services that can be stopped and started.
#[derive(Debug)]
pub struct World {
    /// The broker, to be killed and restarted.
    pub broker: Broker,
    folder: TempDir,
    addresses: BTreeMap<Service, SocketAddr>,
    running: BTreeMap<Service, Running>,
    finished: bool,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl World {
    /// All services on a running broker.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start() -> Self {
        let mut world = Self::empty();
        for service in Service::ALL {
            world.run(service).await;
        }
        world
    }

    /// A running broker, and no service yet.
    ///
    /// # Panics
    /// When the broker does not start.
    pub fn empty() -> Self {
        // `RUST_LOG=info cargo test …` shows more. Only the first test of a process starts it.
        let filter = EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new("error,async_nats=off"));
        let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        Self {
            broker: Broker::start_in_temp().expect("start nats-server"),
            folder: TempDir::new().expect("make a folder"),
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
            finished: false,
        }
    }

    /// Starts a service, where it ran before if it did.
    ///
    /// # Panics
    /// When it does not start.
    #[expect(
        clippy::disallowed_methods,
        reason = "a service is a task of the test here"
    )]
    pub async fn run(&mut self, service: Service) {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = *self.addresses.get(&service).unwrap_or(&anywhere);
        let listener = eventually("the service's port", || async {
            TcpListener::bind(address).await
        })
        .await;
        let address = listener.local_addr().expect("an address");
        self.addresses.insert(service, address);
        let stop = CancellationToken::new();
        let args = self.args(service);
        let told = stop.clone();
        let task = tokio::spawn(async move {
            match service {
                Service::Users => {
                    Box::pin(users::run(
                        users::Config::parse_from(args).service,
                        listener,
                        told,
                    ))
                    .await
                }
                Service::Products => {
                    Box::pin(products::run(
                        products::Config::parse_from(args).service,
                        listener,
                        told,
                    ))
                    .await
                }
                Service::Orders => {
                    Box::pin(orders::run(
                        orders::Config::parse_from(args).service,
                        listener,
                        told,
                    ))
                    .await
                }
                Service::Purchases => {
                    Box::pin(purchases::run(
                        purchases::Config::parse_from(args),
                        listener,
                        told,
                    ))
                    .await
                }
            }
        });
        self.running.insert(service, Running { stop, task });
    }

    fn args(&self, service: Service) -> Vec<String> {
        let database = self.database(service).display().to_string();
        [
            "service",
            "--database",
            &database,
            "--nats-url",
            &self.broker.url(),
            "--listen",
            "127.0.0.1:0",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// Stops a service, in order.
    ///
    /// # Panics
    /// When it does not run, or ends with an error.
    pub async fn stop(&mut self, service: Service) {
        let running = self.running.remove(&service).expect("it runs");
        running.stop.cancel();
        running
            .task
            .await
            .expect("no panic")
            .expect("an orderly end");
    }

    /// A service's database file.
    pub fn database(&self, service: Service) -> PathBuf {
        self.folder.path().join(format!("{}.db", service.name()))
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

    /// What a user ordered, as of `after`.
    pub async fn purchases(&self, user: &str, after: &str) -> Reply {
        let after = if after.is_empty() {
            String::new()
        } else {
            format!("?after={after}")
        };
        let path = format!("/users/{user}/purchases{after}");
        self.client(Service::Purchases).get(&path).await
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

    /// A NATS connection of the test's own.
    ///
    /// # Panics
    /// When the broker does not answer.
    pub async fn nats(&self) -> async_nats::Client {
        async_nats::connect(self.broker.url())
            .await
            .expect("connect to NATS")
    }

    /// A source's stream.
    ///
    /// # Panics
    /// When it is not there.
    pub async fn stream(&self, source: Service) -> jetstream::stream::Stream {
        let jetstream = jetstream::new(self.nats().await);
        let name = source.name().to_uppercase();
        jetstream.get_stream(name).await.expect("the stream")
    }

    /// Stops everything, after checking that nothing is left undone: every part of every service
    /// is well, and every outbox is in its stream.
    ///
    /// # Panics
    /// When something is left.
    pub async fn finish(mut self) {
        self.caught_up().await;
        for service in Service::ALL {
            if self.running.contains_key(&service) {
                self.expect_well(service).await;
            }
        }
        while let Some((service, _)) = self.running.last_key_value() {
            let service = *service;
            self.stop(service).await;
        }
        self.finished = true;
    }

    /// Every part of the service says that it is well. A parked event is one that does not.
    async fn expect_well(&self, service: Service) {
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
    fn drop(&mut self) {
        assert!(
            self.finished || std::thread::panicking(),
            "end the test with world.finish()"
        );
    }
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
