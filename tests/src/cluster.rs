//! Three brokers: which one leads what, and how long users notice an outage.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use reqwest::Method;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::client::{Client, try_send};
use crate::eventually;
use crate::load::{Customers, Ledger};
use crate::world::{Service, World};

/// The pause between two reads of a [`Watch`].
const LOOK_PAUSE: Duration = Duration::from_millis(20);

impl World {
    /// One of the brokers.
    pub fn node(&mut self, number: usize) -> &mut Broker {
        match number.checked_sub(1) {
            None => &mut self.broker,
            Some(peer) => &mut self.peers[peer],
        }
    }

    /// The number of the broker called `name`.
    fn number(&self, name: &str) -> Option<usize> {
        self.nodes().position(|node| node.name() == name)
    }

    /// The number of the broker that leads the stream of `source`.
    pub async fn leader_of(&self, source: Service) -> usize {
        let jetstream = async_nats::jetstream::new(self.nats().await);
        eventually("the stream to have a leader", || async {
            let stream = jetstream.get_stream(source.name().to_uppercase()).await;
            let stream = stream.map_err(|error| error.to_string())?;
            let cluster = stream.cached_info().cluster.clone();
            let leader = cluster.and_then(|cluster| cluster.leader);
            let number = leader.as_ref().and_then(|name| self.number(name));
            number.ok_or_else(|| format!("{leader:?}"))
        })
        .await
    }

    /// The number of the broker that leads the cluster.
    pub async fn leader_of_all(&self) -> usize {
        eventually("the cluster to have a leader", || {
            let mut known = self.nodes().filter_map(Broker::leader);
            let leader = known.find_map(|name| self.number(&name));
            std::future::ready(leader.ok_or("none"))
        })
        .await
    }

    /// Waits until all brokers are up to date.
    pub fn wait_healthy(&self) {
        for node in self.nodes() {
            node.wait_healthy().expect("a healthy broker");
        }
    }

    /// How many replicas of the stream of `source` are current, the leader included.
    pub async fn copies_of(&self, source: Service) -> usize {
        let info = self.stream(source).await.cached_info().clone();
        let followers = info.cluster.into_iter().flat_map(|of| of.replicas);
        1 + followers.filter(|one| one.current && !one.offline).count()
    }
}

/// The longest times that users waited.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outage {
    /// For an answer of `purchases`.
    pub reads: Duration,
    /// For the answer to a command.
    pub writes: Duration,
    /// Until `purchases` showed anything newer from a source.
    pub events: Duration,
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            reads,
            writes,
            events,
        } = self;
        write!(
            f,
            "longest wait: reads {reads:.1?}, writes {writes:.1?}, events {events:.1?}"
        )
    }
}

/// A client that reads all the time, under a load.
#[derive(Debug)]
pub struct Watch {
    stop: CancellationToken,
    reading: JoinSet<Outage>,
    customers: Customers,
    before: usize,
}

impl Watch {
    /// Starts reading.
    pub fn begin(world: &World, customers: &Customers) -> Self {
        let stop = CancellationToken::new();
        let client = world.client(Service::Purchases);
        let ledger = customers.ledger();
        let user = ledger.of(Service::Users).into_values().next();
        let path = format!("/users/{}/purchases", user.expect("a user").id);
        let mut reading = JoinSet::new();
        reading.spawn(read(client, path, stop.clone()));
        Self {
            reading,
            stop,
            customers: customers.clone(),
            before: ledger.commands.len(),
        }
    }

    /// Stops reading. The load must continue until here.
    pub async fn end(mut self) -> Outage {
        self.stop.cancel();
        let read = self.reading.join_next().await.expect("a reader");
        let mut outage = read.expect("the reader does not panic");
        outage.writes = longest_wait(&self.customers.ledger(), self.before);
        outage
    }
}

/// Reads until `stop`; every read must be answered, since `purchases` needs no broker.
async fn read(client: Client, path: String, stop: CancellationToken) -> Outage {
    let mut outage = Outage::default();
    let mut seen: BTreeMap<String, (u64, Instant)> = BTreeMap::new();
    while !stop.is_cancelled() {
        let began = Instant::now();
        let reply = try_send(client.request(Method::GET, &path))
            .await
            .expect("a read");
        assert_eq!(reply.status, 200, "{}", reply.text);
        outage.reads = outage.reads.max(began.elapsed());
        let as_of: BTreeMap<String, u64> =
            serde_json::from_value(reply.json["as_of"].clone()).expect("positions");
        for (source, position) in as_of {
            let before = seen.entry(source).or_insert((position, Instant::now()));
            outage.events = outage.events.max(before.1.elapsed());
            if position != before.0 {
                *before = (position, Instant::now());
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    outage
}

/// The longest time without any answer, from command number `before` on.
fn longest_wait(ledger: &Ledger, before: usize) -> Duration {
    let times: Vec<i64> = ledger
        .commands
        .iter()
        .skip(before)
        .map(|one| one.answered_ms)
        .collect();
    let waits = times.windows(2).map(|two| two[1].saturating_sub(two[0]));
    Duration::from_millis(waits.max().unwrap_or(0).try_into().unwrap_or(0))
}
