//! The status of the brokers, if this account may ask for it: see `$SYS.REQ.SERVER.PING.STATSZ` in
//! deploy/nats.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::{Client, jetstream};
use futures_util::StreamExt as _;
use serde::Deserialize;

/// The request that every broker answers.
const SUBJECT: &str = "$SYS.REQ.SERVER.PING.STATSZ";

/// How long to wait for the next answer; brokers usually answer within milliseconds.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// A broker, and its view of JetStream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Broker {
    /// Its name.
    pub name: String,
    /// The number of brokers in its cluster; 1 if it is alone.
    pub of: usize,
    /// The broker that leads JetStream, if this one is in a cluster and knows the leader.
    pub leader: Option<String>,
    /// The other brokers of its cluster, if it is the leader.
    pub peers: Vec<String>,
    /// Its storage.
    pub storage: Storage,
    /// Whether it syncs to the disk before it acknowledges, and its sync interval.
    pub sync: Option<(bool, Duration)>,
}

/// Used and available storage, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Storage {
    /// Bytes used.
    pub used: u64,
    /// The limit; 0 if there is none.
    pub limit: u64,
}

impl Storage {
    /// The used share of the limit, from 0 to 1; 0 if there is no limit.
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn share(self) -> f64 {
        match self.limit {
            0 => 0.0,
            limit => self.used as f64 / limit as f64,
        }
    }

    /// The storage that is nearest to its limit, of the brokers and the account. The account's if
    /// there are no limits.
    pub fn nearest(brokers: &[Broker], account: Self) -> Self {
        let all = brokers.iter().map(|broker| broker.storage).chain([account]);
        all.max_by(|one, other| one.share().total_cmp(&other.share()))
            .unwrap_or(account)
    }

    /// The storage of an account.
    pub fn of_account(account: &jetstream::account::Account) -> Self {
        Self {
            used: account.storage,
            limit: u64::try_from(account.limits.max_storage.unwrap_or_default())
                .unwrap_or_default(),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    server: Server,
    statsz: Stats,
}

#[derive(Debug, Deserialize)]
struct Server {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stats {
    jetstream: JetStream,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JetStream {
    config: Config,
    stats: Stored,
    meta: Option<Meta>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    max_storage: i64,
    sync_always: bool,
    sync_interval: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    storage: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Meta {
    leader: String,
    cluster_size: usize,
    replicas: Vec<Server>,
}

impl From<Answer> for Broker {
    fn from(answer: Answer) -> Self {
        let JetStream {
            config,
            stats,
            meta,
        } = answer.statsz.jetstream;
        let meta = meta.unwrap_or_default();
        let sync = config
            .sync_interval
            .map(|nanos| (config.sync_always, Duration::from_nanos(nanos)));
        Self {
            name: answer.server.name,
            of: meta.cluster_size.max(1),
            leader: Some(meta.leader).filter(|leader| !leader.is_empty()),
            peers: meta.replicas.into_iter().map(|peer| peer.name).collect(),
            storage: Storage {
                used: stats.storage,
                limit: u64::try_from(config.max_storage).unwrap_or_default(),
            },
            sync,
        }
    }
}

/// Whether a server's error is that this account may not ask. Then only these figures are missing.
pub fn is_not_told(error: &str) -> bool {
    error.contains(SUBJECT)
}

/// Asks all brokers. Empty if the account may not ask, or no broker answers.
pub async fn ask(client: &Client) -> Vec<Broker> {
    let mut brokers = BTreeMap::new();
    let inbox = client.new_inbox();
    let Ok(mut answers) = client.subscribe(inbox.clone()).await else {
        return Vec::new();
    };
    if client
        .publish_with_reply(SUBJECT, inbox, "".into())
        .await
        .is_err()
    {
        return Vec::new();
    }
    // If the account may not ask, there is one empty answer.
    while let Ok(Some(answer)) = tokio::time::timeout(ANSWER_WITHIN, answers.next()).await {
        let Ok(answer) = serde_json::from_slice::<Answer>(&answer.payload) else {
            break;
        };
        let broker = Broker::from(answer);
        let all = broker.of;
        brokers.insert(broker.name.clone(), broker);
        if brokers.len() >= all {
            break;
        }
    }
    brokers.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_is_the_one_that_counts() {
        let of = |used, limit| Broker {
            storage: Storage { used, limit },
            ..Broker::default()
        };
        let account = Storage {
            used: 900,
            limit: 0,
        };
        let brokers = [of(50, 100), of(90, 100), of(10, 100)];
        assert_eq!(Storage::nearest(&brokers, account).used, 90);
        assert_eq!(Storage::nearest(&[], account), account);
        let tight = Storage {
            used: 99,
            limit: 100,
        };
        assert_eq!(Storage::nearest(&brokers, tight), tight);
    }

    #[test]
    fn an_answer_of_a_broker_is_read() {
        let text = r#"{"server":{"name":"nats-a"},"statsz":{"jetstream":{
            "config":{"max_storage":1000,"sync_interval":120000000000,"sync_always":true},
            "stats":{"storage":10},"meta":{"leader":"nats-a","cluster_size":3,
            "replicas":[{"name":"nats-b"},{"name":"nats-c"}]}}}}"#;
        let broker = Broker::from(serde_json::from_str::<Answer>(text).unwrap());
        assert_eq!((broker.of, broker.leader.as_deref()), (3, Some("nats-a")));
        assert_eq!(broker.peers, ["nats-b", "nats-c"]);
        assert!((broker.storage.share() - 0.01).abs() < 1e-9);
        assert_eq!(broker.sync, Some((true, Duration::from_mins(2))));
    }
}
