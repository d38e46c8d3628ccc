//! The baseline of `freshness`: the same three durable writes with nothing around them.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use broker::Broker;
use bytes::Bytes;
use rusqlite::Connection;

use crate::load;

/// Not a subject of the shop.
const SUBJECT: &str = "bench.rival";

/// Two databases and a stream.
#[derive(Debug)]
pub(super) struct Rival {
    source: Connection,
    copy: Connection,
    jetstream: jetstream::Context,
    event: Bytes,
}

impl Rival {
    /// `event`: what is committed and published each time.
    pub(super) async fn start(
        folder: &Path,
        broker: &Broker,
        event: Bytes,
    ) -> anyhow::Result<Self> {
        let jetstream = jetstream::new(async_nats::connect(broker.url()).await?);
        let stream = jetstream::stream::Config {
            name: "RIVAL".to_owned(),
            subjects: vec![SUBJECT.to_owned()],
            ..Default::default()
        };
        jetstream.create_stream(stream).await?;
        Ok(Self {
            source: open(&folder.join("source.db"))?,
            copy: open(&folder.join("copy.db"))?,
            jetstream,
            event,
        })
    }

    /// Runs one after the other for `time`, at most `rate` per second. Returns how long each took,
    /// from the end and from the start of its first commit.
    pub(super) async fn run(
        &mut self,
        rate: u32,
        time: Duration,
    ) -> anyhow::Result<Vec<(Duration, Duration)>> {
        let started = Instant::now();
        let mut seen = Vec::new();
        for due in load::dues(0, 1, rate, time) {
            if started.elapsed() >= time {
                break;
            }
            tokio::time::sleep_until((started + due).into()).await;
            let sent = Instant::now();
            insert(&self.source, &self.event)?;
            let committed = Instant::now();
            let published = self.jetstream.publish(SUBJECT, self.event.clone()).await?;
            published.await?;
            insert(&self.copy, &self.event)?;
            seen.push((committed.elapsed(), sent.elapsed()));
        }
        Ok(seen)
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

/// Inserts in a separate commit.
fn insert(connection: &Connection, event: &Bytes) -> anyhow::Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO event (payload) VALUES (?)")?;
    insert.execute([&event[..]])?;
    Ok(())
}
