//! Brokers with the accounts from deploy/nats: each user has its own password.

use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::{Client, ConnectError, ConnectOptions};
use broker::{Broker, Cluster, Options, Sync};
use clap::Parser as _;
use cli::{Cli, Exit};
use tempfile::TempDir;

use crate::World;
use crate::world::options;

/// The file that the broker's configuration includes.
const ACCOUNTS: &str = "accounts.conf";

/// The folder with a password file for each user.
#[derive(Debug, Clone)]
pub struct Passwords(PathBuf);

impl Passwords {
    /// Makes passwords in `folder`, next to the accounts.
    fn make(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("make a folder");
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nats");
        std::fs::copy(shipped.join(ACCOUNTS), folder.join(ACCOUNTS)).expect("copy the accounts");
        let secrets = shipped.join("secrets.sh").canonicalize().expect("a script");
        let made = Command::new("sh").arg(secrets).current_dir(folder).status();
        assert!(made.expect("make passwords").success());
        Self(folder.join("passwords"))
    }

    /// Copies accounts and passwords to the folder of another server.
    fn copy_to(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("make a folder");
        let from = self.0.parent().expect("a folder");
        for file in [ACCOUNTS, "passwords.conf"] {
            std::fs::copy(from.join(file), folder.join(file)).expect("copy a file");
        }
    }

    /// The folder with a file for each user.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    pub fn of(&self, user: &str) -> String {
        let password = std::fs::read_to_string(self.0.join(user)).expect("a password");
        password.trim().to_owned()
    }

    /// A connection as `user`; replies of the service reach its inbox.
    pub async fn connect(&self, urls: &str, user: &str) -> Client {
        let connected = self.try_connect(urls, user).await;
        connected.expect("connect to NATS")
    }

    /// Like [`connect`](Self::connect), but the broker may refuse.
    pub async fn try_connect(&self, urls: &str, user: &str) -> Result<Client, ConnectError> {
        let options = ConnectOptions::new()
            .user_and_password(user.to_owned(), self.of(user))
            .custom_inbox_prefix(format!("_INBOX_{user}"));
        let servers: Vec<&str> = urls.split(',').collect();
        options.connect(servers).await
    }

    /// Runs `headwater` as `user` and returns its exit code.
    pub async fn tool(&self, urls: &str, user: &str, args: &[&str]) -> Exit {
        let password = self.of(user);
        let common = [
            "--no-context",
            "--server",
            urls,
            "--user",
            user,
            "--password",
            &password,
        ];
        let line = ["headwater"].iter().chain(args).chain(&common);
        cli::run(Cli::parse_from(line)).await
    }

    /// Creates streams, consumers and the bucket as an operator does.
    pub async fn provision(&self, urls: &str, replicas: usize) {
        let replicas = replicas.to_string();
        let plan = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nats/plan.json");
        let plan = plan.display().to_string();
        let args = [
            "provision",
            "--yes",
            "--plan",
            &plan,
            "--replicas",
            &replicas,
        ];
        let ended = self.tool(urls, "operator", &args).await;
        assert_eq!(ended, Exit::Done, "headwater provision");
    }
}

/// One broker whose store is below `folder`.
pub fn one(folder: &Path) -> (Broker, Passwords) {
    let store = folder.join("broker");
    let passwords = Passwords::make(&store);
    let options = Options {
        include: Some(ACCOUNTS.to_owned()),
        sync: Sync::Default,
        ..Options::new(&store)
    };
    let binary = broker::find(&|_| {}).expect("find nats-server");
    let broker = Broker::start(&binary, options).expect("start nats-server");
    (broker, passwords)
}

/// Three brokers whose stores are below `folder`.
pub fn three(folder: &Path) -> (Cluster, Passwords) {
    let options = Options {
        include: Some(ACCOUNTS.to_owned()),
        ..options(folder)
    };
    let passwords = Passwords::make(&folder.join("accounts"));
    for node in 1..=3 {
        passwords.copy_to(&options.store.join(node.to_string()));
    }
    let binary = broker::find(&|_| {}).expect("find nats-server");
    let cluster = Cluster::start(&binary, &options).expect("start three nats-servers");
    (cluster, passwords)
}

impl World {
    /// A world whose broker requires a password; it has no streams yet.
    pub fn with_accounts() -> (Self, Passwords) {
        let folder = TempDir::new().expect("make a folder");
        let (broker, passwords) = one(folder.path());
        let world = Self::on([broker], folder)
            .logging_in(passwords.folder().to_owned())
            .empty();
        (world, passwords)
    }

    /// Like [`with_accounts`](Self::with_accounts), on three brokers.
    pub fn clustered_with_accounts() -> (Self, Passwords) {
        let folder = TempDir::new().expect("make a folder");
        let (cluster, passwords) = three(folder.path());
        let world = Self::on(cluster.into_nodes(), folder)
            .logging_in(passwords.folder().to_owned())
            .empty();
        (world, passwords)
    }
}
