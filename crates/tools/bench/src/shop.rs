//! The measured services as processes, with their own broker and files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use broker::{Broker, Options};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use crate::bench::{Bench, Binaries};
use crate::connection::Connection;
use crate::load;
use crate::process::Process;

/// Concurrent requests while data is imported.
const CLIENTS: usize = 64;

/// A broker, and a folder for the files of its services.
#[derive(Debug)]
pub(crate) struct Stage {
    // The order matters: the broker is dropped before its folder.
    pub(crate) broker: Broker,
    folder: TempDir,
    binaries: Binaries,
}

impl Stage {
    /// Starts a broker in a new folder.
    pub(crate) fn new(bench: &Bench) -> anyhow::Result<Self> {
        let folder = bench.folder()?;
        Ok(Self {
            broker: start_broker(Options::new(folder.path().join("nats")))?,
            folder,
            binaries: bench.binaries.clone(),
        })
    }

    /// The folder for databases, streams and logs.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the service `name`; `label` names its database and its log.
    pub(crate) async fn start(
        &self,
        name: &str,
        label: &str,
        flags: &[&str],
    ) -> anyhow::Result<Process> {
        let program = self.binaries.of(name)?;
        start(&program, self.folder(), label, &self.broker, flags).await
    }
}

/// The three sources and their broker.
#[derive(Debug)]
pub(crate) struct Shop {
    // The order matters: services are dropped before their broker.
    pub(crate) users: Process,
    pub(crate) products: Process,
    pub(crate) orders: Process,
    pub(crate) stage: Stage,
}

impl Shop {
    /// Starts broker and sources; `flags` for `orders` are in `orders`.
    pub(crate) async fn start(bench: &Bench, orders: &[&str]) -> anyhow::Result<Self> {
        let stage = Stage::new(bench)?;
        Ok(Self {
            users: stage.start("users", "users", &[]).await?,
            products: stage.start("products", "products", &[]).await?,
            orders: stage.start("orders", "orders", orders).await?,
            stage,
        })
    }

    /// Registers `count` users and creates `products` products; `orders` knows them all.
    pub(crate) async fn fill(&self, users: usize, products: usize) -> anyhow::Result<Ids> {
        let users: Vec<_> = (0..users).map(|_| Uuid::now_v7()).collect();
        let products: Vec<_> = (0..products).map(|_| Uuid::now_v7()).collect();
        let bodies = users.iter().map(|id| user(*id)).collect();
        let users_at = post_all(&self.users, "/users", bodies).await?;
        let bodies = products.iter().map(|id| product(*id)).collect();
        let products_at = post_all(&self.products, "/products", bodies).await?;
        let ids = Ids { users, products };
        // The first order waits until `orders` has applied them all.
        let first = format!("/orders?after=users:{users_at},products:{products_at}");
        let body = order(ids.users[0], &ids.products[..1]);
        post_all(&self.orders, &first, vec![body]).await?;
        Ok(ids)
    }
}

/// The ids of users and products.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    pub(crate) users: Vec<Uuid>,
    pub(crate) products: Vec<Uuid>,
}

impl Ids {
    /// An order of `lines` random products for a random user.
    pub(crate) fn any_order(&self, random: &mut fastrand::Rng, lines: usize) -> String {
        let user = self.users[random.usize(..self.users.len())];
        order(user, &self.any_products(random, lines))
    }

    /// `count` different products, or fewer if there are not enough.
    pub(crate) fn any_products(&self, random: &mut fastrand::Rng, count: usize) -> Vec<Uuid> {
        let first = random.usize(..self.products.len());
        let stride = self.products.len() / count.max(1);
        let at = |line| (first + line * stride) % self.products.len();
        (0..count).map(|line| self.products[at(line)]).collect()
    }
}

pub(crate) fn user(id: Uuid) -> String {
    json!({ "id": id, "name": "Ada Lovelace", "email": format!("{id}@example.com") }).to_string()
}

pub(crate) fn product(id: Uuid) -> String {
    json!({ "id": id, "title": title(id), "image": image(id) }).to_string()
}

/// A title of 30 characters.
pub(crate) fn title(id: Uuid) -> String {
    format!("Enamel mug, river green {:06x}", id.as_u128() & 0x00ff_ffff)
}

/// An image reference of 40 characters.
pub(crate) fn image(id: Uuid) -> String {
    format!(
        "https://img.example.com/{:012x}.png",
        id.as_u128() & 0xffff_ffff_ffff
    )
}

pub(crate) fn order(user: Uuid, products: &[Uuid]) -> String {
    json!({ "user_id": user, "product_ids": products }).to_string()
}

/// POSTs all `bodies` concurrently; returns the last position.
pub(crate) async fn post_all(to: &Process, path: &str, bodies: Vec<String>) -> anyhow::Result<u64> {
    let next = Arc::new(AtomicUsize::new(0));
    let clients = CLIENTS.min(bodies.len());
    let bodies: Arc<[String]> = bodies.into();
    let connections = Connection::several(to.address, clients).await?.into_iter();
    let clients = connections.map(|mut connection| {
        let (next, bodies, path) = (Arc::clone(&next), Arc::clone(&bodies), path.to_owned());
        async move {
            let mut last = 0;
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                last = connection.post(&path, body).await?.position()?;
            }
            Ok(last)
        }
    });
    let last = load::together(clients).await?;
    Ok(last.into_iter().max().unwrap_or(0))
}

/// Starts the nats-server found on this machine.
pub(crate) fn start_broker(options: Options) -> anyhow::Result<Broker> {
    let binary = broker::find(&|_| {}).context("find nats-server")?;
    Broker::start(&binary, options).context("start nats-server")
}

/// Starts a service; `label` names its database and its log in `folder`.
pub(crate) async fn start(
    program: &Path,
    folder: &Path,
    label: &str,
    broker: &Broker,
    flags: &[&str],
) -> anyhow::Result<Process> {
    let database = folder.join(format!("{label}.db")).display().to_string();
    let nats = broker.url();
    let own = [
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--nats-url",
        &nats,
        "--database",
        &database,
    ];
    let arguments: Vec<_> = own.iter().chain(flags).map(ToString::to_string).collect();
    let log = folder.join(format!("{label}.log"));
    Process::start(program, &arguments, log).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_of_the_size_that_the_documents_say() {
        let id = Uuid::now_v7();
        assert_eq!((title(id).len(), image(id).len()), (30, 40));
    }

    #[test]
    fn an_order_names_different_products() {
        let ids = Ids {
            users: vec![Uuid::now_v7()],
            products: (0..100).map(Uuid::from_u128).collect(),
        };
        let mut products = ids.any_products(&mut fastrand::Rng::with_seed(1), 10);
        products.sort();
        products.dedup();
        assert_eq!(products.len(), 10);
    }
}
