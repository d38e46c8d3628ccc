//! The brokers: which are reachable, whether JetStream has a quorum, and how full it is.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::ServerAddr;
use client::{Nats, Unreachable};
use futures_util::future::join_all;
use headwater::brokers::{self, Broker, Storage};
use headwater::causes;
use headwater::replicas::{NO_QUORUM, WITHOUT_QUORUM, is_no_quorum};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a broker may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// The broker's error for an account without JetStream, such as the system account.
const NOT_FOR_ACCOUNT: &str = "JetStream not enabled for account";

/// What to report then.
pub(crate) const NOT_FOR_USER: &str = "JetStream is not enabled for the account of this user; log in as the operator or the viewer (deploy/nats)";

/// The state of the brokers.
#[derive(Debug, Serialize)]
pub struct Brokers {
    /// Brokers that answer: their names, or their addresses if the names are unknown.
    pub(crate) there: Vec<String>,
    /// Known brokers that do not answer.
    pub(crate) away: Vec<String>,
    /// How many brokers there should be.
    pub(crate) expected: usize,
    pub(crate) jetstream: JetStream,
    /// The bytes stored, by the broker or the account that is nearest to its limit.
    pub(crate) stored_bytes: Option<u64>,
    /// The limit of that broker or account, if known.
    pub(crate) storage_limit_bytes: Option<u64>,
    #[serde(skip)]
    pub(crate) statuses: Vec<Broker>,
}

/// Whether JetStream can be used.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "state", content = "detail", rename_all = "kebab-case")]
pub(crate) enum JetStream {
    /// Usable, with this many streams.
    Up(usize),
    /// Too few brokers are up for a quorum.
    NoQuorum,
    /// The account of this user has no JetStream.
    NotForUser,
    /// JetStream reports an error or does not answer.
    Down(String),
}

impl Brokers {
    /// Asks the brokers that the connection leads to, or checks the configured addresses.
    ///
    /// Returns [`Unreachable`] if the connection is lost.
    pub(crate) async fn look(nats: &Nats) -> Result<Self, Unreachable> {
        let (statuses, account) =
            tokio::join!(brokers::ask(&nats.client), nats.jetstream.query_account());
        let names: BTreeSet<String> = statuses.iter().map(|broker| broker.name.clone()).collect();
        let (there, away, expected) = if names.is_empty() {
            at_addresses(nats).await
        } else {
            let of = statuses.iter().map(|broker| broker.of).max().unwrap_or(1);
            let peers = statuses.iter().flat_map(|broker| broker.peers.clone());
            let away = peers.filter(|peer| !names.contains(peer)).collect();
            (names.into_iter().collect(), away, of)
        };
        nats.expect_connected()?;
        let has_majority = there.len() * 2 > expected;
        let storage = account.as_ref().ok().map(Storage::of_account);
        let jetstream = match account {
            Ok(account) if has_majority => JetStream::Up(account.streams),
            Ok(_) => JetStream::NoQuorum,
            Err(error) => {
                let error = anyhow::Error::from(error);
                if is_no_quorum(error.as_ref()) || !has_majority {
                    JetStream::NoQuorum
                } else if causes(error.as_ref()).contains(NOT_FOR_ACCOUNT) {
                    JetStream::NotForUser
                } else {
                    JetStream::Down(causes(error.as_ref()))
                }
            }
        };
        let storage = Storage::nearest(&statuses, storage.unwrap_or_default());
        Ok(Self {
            there,
            away,
            expected,
            jetstream,
            stored_bytes: (storage != Storage::default()).then_some(storage.used),
            storage_limit_bytes: Some(storage.limit).filter(|limit| *limit > 0),
            statuses,
        })
    }

    /// Whether streams can be read.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(self.jetstream, JetStream::Up(_))
    }

    /// Whether JetStream is missing here, regardless of the number of brokers.
    pub(crate) fn is_without_jetstream(&self) -> bool {
        matches!(self.jetstream, JetStream::Down(_) | JetStream::NotForUser)
    }

    /// Returns [`Unreachable`] if there is no quorum, or why JetStream does not answer.
    pub fn expect_usable(&self) -> anyhow::Result<()> {
        match &self.jetstream {
            JetStream::Up(_) => Ok(()),
            JetStream::NoQuorum => Err(Unreachable::Quorum.into()),
            JetStream::NotForUser => anyhow::bail!("ask JetStream: {NOT_FOR_USER}"),
            JetStream::Down(why) => anyhow::bail!("ask JetStream: {why}"),
        }
    }

    /// The number of streams, as far as JetStream reports it.
    pub(crate) fn streams(&self) -> usize {
        match self.jetstream {
            JetStream::Up(streams) => streams,
            _ => 0,
        }
    }

    /// Why nothing can be published without a quorum.
    pub(crate) fn no_quorum(&self) -> String {
        let (there, expected) = (self.there.len(), self.expected);
        let what = match expected {
            // The number of brokers is unknown.
            1 => format!("{NO_QUORUM} besides {}", self.there.join(", ")),
            _ if there * 2 > expected => {
                format!(
                    "no quorum yet: {there} of {expected} brokers are back and are electing a leader"
                )
            }
            _ => format!(
                "no quorum: {there} of {expected} brokers reachable{}",
                self.names_of_away()
            ),
        };
        format!("{what}; {WITHOUT_QUORUM}")
    }

    fn names_of_away(&self) -> String {
        match self.away.as_slice() {
            [] => String::new(),
            away => format!(" ({} not)", away.join(", ")),
        }
    }

    /// How full it is, if a limit is known.
    pub(crate) fn storage(&self) -> Option<Storage> {
        let (used, limit) = (self.stored_bytes?, self.storage_limit_bytes?);
        Some(Storage { used, limit })
    }

    /// Reports that some brokers are away while the others have a quorum.
    pub(crate) fn fewer(&self) -> Option<String> {
        let (there, expected) = (self.there.len(), self.expected);
        (self.is_usable() && there < expected).then(|| {
            format!(
                "{there} of {expected} brokers reachable{}",
                self.names_of_away()
            )
        })
    }
}

/// The configured addresses that accept connections, those that do not, and how many there are.
async fn at_addresses(nats: &Nats) -> (Vec<String>, Vec<String>, usize) {
    let configured = nats.servers();
    if configured.len() < 2 {
        return (vec![nats.client.server_info().server_name], Vec::new(), 1);
    }
    let looks = configured.iter().map(async |server| {
        let address = format!("{}:{}", server.host(), server.port());
        (address, accepts(server).await)
    });
    let (there, away): (Vec<_>, Vec<_>) =
        join_all(looks).await.into_iter().partition(|(_, is)| *is);
    let addresses = |of: Vec<(String, bool)>| of.into_iter().map(|(address, _)| address).collect();
    (addresses(there), addresses(away), configured.len())
}

async fn accepts(server: &ServerAddr) -> bool {
    let connecting = async {
        for address in server.socket_addrs().await.into_iter().flatten() {
            if TcpStream::connect(address).await.is_ok() {
                return true;
            }
        }
        false
    };
    timeout(CONNECT_WITHIN, connecting).await.unwrap_or(false)
}
