//! A shop's events by the million, made directly, and published without a relay: for what reads
//! or writes that many.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_MESSAGE_ID,
};
use async_nats::{Client, HeaderMap, Request, jetstream};
use bytes::Bytes;
use headwater::{Event, stream, subject_of};
use serde_json::Value;
use shop_events::{OrderPlaced, ProductCreated, UserRegistered};
use uuid::Uuid;

use crate::load::count;
use crate::shop::{image, title};

/// Events in one atomic batch: the server's limit.
pub(crate) const BATCH: usize = 1_000;

/// When the first thing was made, in milliseconds since 1970.
const FIRST_MS: i64 = 1_700_000_000_000;

/// How large a shop is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) users: usize,
    pub(crate) products: usize,
    /// Each of one product.
    pub(crate) orders: usize,
}

impl Size {
    /// A shop with ten orders for each user and a hundred for each product.
    pub(crate) fn of(orders: usize) -> Self {
        Self {
            users: orders.div_ceil(10),
            products: orders.div_ceil(100),
            orders,
        }
    }

    /// Events of all sources.
    pub(crate) fn events(self) -> usize {
        self.users + self.products + self.orders
    }

    /// Events a second, if all of them took so long.
    pub(crate) fn rate(self, took: Duration) -> f64 {
        count(self.events()) / took.as_secs_f64()
    }
}

/// An event as it is published.
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

/// The kinds of things that have ids.
#[derive(Clone, Copy, Debug)]
enum Kind {
    User = 1,
    Product,
    Order,
}

/// The id of the `number`-th thing: one a millisecond, in the order of their making, as
/// UUIDs of version 7 are.
fn id(kind: Kind, number: usize) -> String {
    let at_ms = FIRST_MS.unsigned_abs() + number as u64;
    let chance = fastrand::Rng::with_seed(number as u64 * 4 + kind as u64).u64(..);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&chance.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(at_ms, &random)
        .into_uuid()
        .to_string()
}

fn time(number: usize) -> shop_events::Timestamp {
    let after = i64::try_from(number).unwrap_or(i64::MAX);
    shop_events::timestamp(FIRST_MS.saturating_add(after))
}

fn user(number: usize) -> Published {
    Published::of(&UserRegistered {
        user_id: id(Kind::User, number),
        registered_at: Some(time(number)),
    })
}

fn product(number: usize) -> Published {
    let product_id = id(Kind::Product, number);
    let uuid: Uuid = product_id.parse().unwrap_or_default();
    Published::of(&ProductCreated {
        title: title(uuid),
        image: image(uuid),
        product_id,
    })
}

/// The `number`-th order of a shop of `size`, by anybody, of anything.
pub(crate) fn order(number: usize, size: Size) -> Published {
    let mut random = fastrand::Rng::with_seed(number as u64);
    Published::of(&OrderPlaced {
        order_id: id(Kind::Order, number),
        user_id: id(Kind::User, random.usize(..size.users)),
        product_ids: vec![id(Kind::Product, random.usize(..size.products))],
        placed_at: Some(time(number)),
    })
}

/// Makes the streams of a shop of `size`, as its relays would have.
pub(crate) async fn fill(client: &Client, size: Size) -> anyhow::Result<()> {
    make(client, "users").await?;
    publish(client, "users", (0..size.users).map(user)).await?;
    make(client, "products").await?;
    publish(client, "products", (0..size.products).map(product)).await?;
    make(client, "orders").await?;
    let orders = (0..size.orders).map(|number| order(number, size));
    publish(client, "orders", orders).await
}

/// Makes the stream of `source`, with the settings that its service would make it with.
pub(crate) async fn make(client: &Client, source: &str) -> anyhow::Result<()> {
    let jetstream = jetstream::new(client.clone());
    let made = jetstream.create_stream(stream::settings(source, 1)).await;
    made.with_context(|| format!("make the stream of {source}"))?;
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
