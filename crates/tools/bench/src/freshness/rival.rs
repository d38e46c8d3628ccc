//! The rival of `freshness`: what has to be on a disk three times, put there with nothing around.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream;
use broker::Broker;
use bytes::Bytes;
use prost::Message as _;
use rusqlite::Connection;
use shop_events::OrderPlaced;
use uuid::Uuid;

use super::{LINES, Seen};
use crate::shop::Ids;

/// Never a subject of the shop.
const SUBJECT: &str = "bench.rival";

/// Two files and a stream.
#[derive(Debug)]
pub(super) struct Rival {
    source: Connection,
    copy: Connection,
    jetstream: jetstream::Context,
    event: Bytes,
}

impl Rival {
    pub(super) async fn start(folder: &Path, broker: &Broker, ids: &Ids) -> anyhow::Result<Self> {
        let client = async_nats::connect(broker.url())
            .await
            .context("connect to NATS")?;
        let jetstream = jetstream::new(client);
        let stream = jetstream::stream::Config {
            name: "RIVAL".to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            ..Default::default()
        };
        jetstream
            .create_stream(stream)
            .await
            .context("make the rival's stream")?;
        let products = &ids.products[..LINES];
        let event = OrderPlaced {
            order_id: Uuid::now_v7().to_string(),
            user_id: ids.users[0].to_string(),
            product_ids: products.iter().map(Uuid::to_string).collect(),
            placed_at: Some(shop_events::timestamp(1_700_000_000_000)),
        };
        Ok(Self {
            source: open(&folder.join("source.db"))?,
            copy: open(&folder.join("copy.db"))?,
            jetstream,
            event: event.encode_to_vec().into(),
        })
    }

    /// One after the other, `rate` a second at most, for `time`.
    pub(super) async fn run(&mut self, rate: u32, time: Duration) -> anyhow::Result<Seen> {
        let started = Instant::now();
        let mut seen = Vec::new();
        for turn in 0.. {
            let due = started + Duration::from_secs(turn) / rate;
            if due.max(Instant::now()) >= started + time {
                break;
            }
            tokio::time::sleep_until(due.into()).await;
            let sent = Instant::now();
            insert(&self.source, &self.event)?;
            let committed = Instant::now();
            let published = self.jetstream.publish(SUBJECT, self.event.clone()).await;
            published.context("publish")?.await.context("publish")?;
            insert(&self.copy, &self.event)?;
            seen.push((committed.elapsed(), sent.elapsed()));
        }
        Seen::new(seen, started.elapsed())
    }
}

fn open(path: &Path) -> anyhow::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE event (position INTEGER PRIMARY KEY, payload BLOB NOT NULL);",
    )?;
    Ok(connection)
}

/// A commit of its own.
fn insert(connection: &Connection, event: &Bytes) -> anyhow::Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO event (payload) VALUES (?)")?;
    insert.execute([&event[..]])?;
    Ok(())
}
