//! A shop's events by the million, created directly and published without a relay, for figures that
//! read or write that many.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_MESSAGE_ID,
};
use async_nats::{Client, HeaderMap, Request, jetstream};
use bytes::Bytes;
use headwater::{Event, stream, subject_of};
use serde_json::Value;
use uuid::Uuid;

use crate::events::{self, FIRST_MS};
use crate::load::count;

/// Events per atomic batch: the server's limit.
pub(crate) const BATCH: usize = 1_000;

/// The size of a shop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) users: usize,
    pub(crate) products: usize,
    /// Orders, each of one product.
    pub(crate) orders: usize,
}

impl Size {
    /// A shop with ten orders per user and a hundred per product.
    pub(crate) fn of(orders: usize) -> Self {
        Self {
            users: orders.div_ceil(10),
            products: orders.div_ceil(100),
            orders,
        }
    }

    /// The number of events of all sources.
    pub(crate) fn events(self) -> usize {
        self.users + self.products + self.orders
    }

    /// Events per second, if all of them took this long.
    pub(crate) fn rate(self, took: Duration) -> f64 {
        count(self.events()) / took.as_secs_f64()
    }
}

/// An event to publish.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) subject: String,
    pub(crate) key: String,
    pub(crate) payload: Bytes,
}

impl Published {
    fn of<E: Event>(event: &E) -> Self {
        Self {
            subject: subject_of(event),
            key: event.key().to_owned(),
            payload: event.encode_to_vec().into(),
        }
    }
}

/// The kinds of records with ids.
#[derive(Clone, Copy, Debug)]
enum Kind {
    User = 1,
    Product,
    Order,
}

/// The id of the `number`-th record, one per millisecond, in order of creation like UUIDs of
/// version 7.
fn id(kind: Kind, number: usize) -> Uuid {
    let chance = fastrand::Rng::with_seed(number as u64 * 4 + kind as u64).u64(..);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&chance.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(time(number).unsigned_abs(), &random).into_uuid()
}

/// The creation time of the `number`-th record, in milliseconds since 1970.
fn time(number: usize) -> i64 {
    FIRST_MS.saturating_add(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The `number`-th order of a shop of `size`, of a random user and product.
pub(crate) fn order(number: usize, size: Size) -> Published {
    let mut random = fastrand::Rng::with_seed(number as u64);
    let user = id(Kind::User, random.usize(..size.users));
    let product = id(Kind::Product, random.usize(..size.products));
    let order = id(Kind::Order, number);
    Published::of(&events::placed(order, user, [product], time(number)))
}

/// Creates the streams of a shop of `size`, as its relays would.
pub(crate) async fn fill(client: &Client, size: Size) -> anyhow::Result<()> {
    let users = (0..size.users)
        .map(|user| Published::of(&events::registered(id(Kind::User, user), time(user))));
    let products = (0..size.products)
        .map(|product| Published::of(&events::created(id(Kind::Product, product))));
    let orders = (0..size.orders).map(|number| order(number, size));
    for source in ["users", "products", "orders"] {
        make(client, source).await?;
    }
    publish(client, "users", users).await?;
    publish(client, "products", products).await?;
    publish(client, "orders", orders).await
}

/// Creates the stream of `source`, with its service's settings.
pub(crate) async fn make(client: &Client, source: &str) -> anyhow::Result<()> {
    let jetstream = jetstream::new(client.clone());
    let made = jetstream.create_stream(stream::settings(source, 1)).await;
    made.with_context(|| format!("create the stream of {source}"))?;
    Ok(())
}

/// Publishes `events` in atomic batches, one after the other, with ids like a relay's.
pub(crate) async fn publish(
    client: &Client,
    source: &str,
    events: impl Iterator<Item = Published>,
) -> anyhow::Result<()> {
    let mut events = events.zip(1_usize..);
    loop {
        let batch: Vec<_> = events.by_ref().take(BATCH).collect();
        let Some((last, before)) = batch.split_last() else {
            return Ok(());
        };
        let name = Uuid::now_v7().simple().to_string();
        let headers = |position: usize, index: usize| {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, format!("{source}.bench.{position}"));
            headers.insert(NATS_BATCH_ID, name.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, (index + 1).to_string());
            headers
        };
        for (index, (event, position)) in before.iter().enumerate() {
            let (subject, payload) = (event.subject.clone(), event.payload.clone());
            client
                .publish_with_headers(subject, headers(*position, index), payload)
                .await?;
        }
        let (event, position) = last;
        let mut headers = headers(*position, before.len());
        headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
        let request = Request::new()
            .headers(headers)
            .payload(event.payload.clone());
        let answer = client.send_request(event.subject.clone(), request).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(answer["error"].is_null(), "publish a batch: {answer}");
    }
}
