//! What must be everywhere according to the acknowledged commands, computed without code of the
//! services.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use futures_util::{StreamExt as _, stream};
use headwater::Event;
use serde_json::Value;
use shop_events::{OrderPlaced, ProductCreated, UserRegistered};

use crate::eventually;
use crate::load::{Customers, Ledger};
use crate::world::{Service, World};

/// How many requests run concurrently.
const AT_ONCE: usize = 32;

/// Title and image of a product.
pub type Look = (String, String);

/// The products that a user must be shown.
pub type Shown = BTreeSet<Look>;

/// An event in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The stream sequence.
    pub sequence: u64,
    /// Its `Nats-Msg-Id`; empty if it has none.
    pub id: String,
    /// The id of the user, product or order that it is about.
    pub subject: String,
    pub headers: HeaderMap,
}

impl Stored {
    /// The position in its `Nats-Msg-Id`; 0 if it has none.
    pub fn position(&self) -> u64 {
        let number = self.id.rsplit('.').next().unwrap_or_default();
        number.parse().unwrap_or(0)
    }
}

/// All events of a source's stream, in order.
pub async fn stored(world: &World, source: Service) -> Vec<Stored> {
    let stream = world.stream(source).await;
    let state = stream.get_info().await.expect("the stream's state").state;
    stream::iter(state.first_sequence.max(1)..=state.last_sequence)
        .map(|sequence| event_at(&stream, sequence))
        .buffered(AT_ONCE)
        .filter_map(async |event| {
            let event = event?;
            let id = event.headers.get("Nats-Msg-Id");
            Some(Stored {
                sequence: event.sequence,
                id: id.map(|id| id.as_str().to_owned()).unwrap_or_default(),
                subject: about(source, &event.payload),
                headers: event.headers,
            })
        })
        .collect()
        .await
}

/// The event at `sequence`, unless it was deleted. Waits while a cluster elects a leader.
async fn event_at(stream: &Stream, sequence: u64) -> Option<StreamMessage> {
    eventually("an event of the stream", || async {
        match stream.get_raw_message(sequence).await {
            Ok(event) => Ok(Some(event)),
            Err(error) if matches!(error.kind(), RawMessageErrorKind::NoMessageFound) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    })
    .await
}

/// The id in an event; empty for other kinds of events.
fn about(source: Service, payload: &[u8]) -> String {
    fn decoded<E: Event>(payload: &[u8]) -> E {
        E::decode(payload).unwrap_or_default()
    }
    match source {
        Service::Users => decoded::<UserRegistered>(payload).user_id,
        Service::Products => decoded::<ProductCreated>(payload).product_id,
        _ => decoded::<OrderPlaced>(payload).order_id,
    }
}

/// Asserts that everything agrees with the acknowledged commands: outboxes, streams, answers under
/// old keys, the read store, and the rebuilt read store.
pub async fn all_agree(world: &mut World, customers: &Customers) {
    let ledger = customers.ledger();
    for source in world.known().filter(|one| Service::SOURCES.contains(one)) {
        outbox_agrees(world, source, &ledger).await;
        stream_agrees(world, source, &ledger).await;
    }
    keys_have_one_effect(world, customers).await;
    if world.known().any(|one| one == Service::Purchases) {
        shown_agrees(world, &ledger).await;
        rebuilt_agrees(world, &ledger).await;
    }
}

/// Asserts that the read store agrees after a rebuild from the first event.
pub async fn rebuilt_agrees(world: &mut World, ledger: &Ledger) {
    world.stop(Service::Purchases).await;
    world.delete_database(Service::Purchases);
    world.run(Service::Purchases).await;
    shown_agrees(world, ledger).await;
}

/// Asserts that the outbox has exactly one event per acknowledged command.
pub async fn outbox_agrees(world: &World, source: Service, ledger: &Ledger) {
    let head = world.heads().await.get(source.name());
    let positions: Vec<u64> = ledger.of(source).into_keys().collect();
    let wanted: Vec<u64> = (1..=head).collect();
    assert_eq!(
        positions,
        wanted,
        "{}: one event per command",
        source.name()
    );
}

/// Waits until the stream holds exactly one event per acknowledged command, in order.
pub async fn stream_agrees(world: &World, source: Service, ledger: &Ledger) {
    let wanted: Vec<(u64, String)> = ledger
        .of(source)
        .into_iter()
        .map(|(position, command)| (position, command.id.clone()))
        .collect();
    let what = format!("{} in its stream", source.name());
    eventually(&what, || async {
        let stored = stored(world, source).await;
        let found: Vec<_> = stored
            .into_iter()
            .map(|event| (event.position(), event.subject))
            .collect();
        let differs = wanted.iter().zip(&found).position(|(a, b)| a != b);
        match differs {
            None if wanted.len() == found.len() => Ok(()),
            at => Err(format!(
                "{} of {} events; the first that differs: {:?}",
                found.len(),
                wanted.len(),
                at.map(|at| (&wanted[at], &found[at]))
            )),
        }
    })
    .await;
}

/// Asserts that each command gets the same answer when repeated under its key, and that the
/// outboxes do not change.
pub async fn keys_have_one_effect(world: &World, customers: &Customers) {
    let heads = world.heads().await;
    stream::iter(customers.ledger().commands)
        .for_each_concurrent(AT_ONCE, async |command| {
            let path = format!("/{}", command.service.name());
            let again = customers
                .insist(command.service, &path, &command.key, &command.body)
                .await;
            assert_eq!(again.id(), command.id, "another answer to {command:?}");
            let read = world.client(command.service);
            let read = read.get(&format!("{path}/{}", command.id)).await;
            assert_eq!(read.status, 200, "{command:?}: {}", read.text);
        })
        .await;
    assert_eq!(world.heads().await, heads, "a key had a second effect");
}

/// Asserts that `purchases` shows each user what the ledger says.
pub async fn shown_agrees(world: &World, ledger: &Ledger) {
    let of = |service| ledger.of(service).into_values();
    let expected = shown_to_each(
        of(Service::Users).map(|made| made.id.clone()),
        of(Service::Products).map(|made| (made.id.clone(), look(&made.body))),
        of(Service::Orders).map(|made| &made.body),
        text,
    );
    shows(world, Service::Purchases, expected).await;
}

/// Asserts that the query service in the style `style` shows each user what is `expected`, once it
/// has caught up.
pub async fn shows(world: &World, style: Service, expected: BTreeMap<String, Shown>) {
    world.caught_up().await;
    stream::iter(expected)
        .for_each_concurrent(AT_ONCE, async |(user, expected)| {
            let reply = world.purchases_by(style, &user, "").await;
            assert_eq!(reply.status, 200, "{user}: {}", reply.text);
            let purchases = reply.json["purchases"].as_array().expect("purchases");
            let shown: Shown = purchases.iter().map(look).collect();
            assert_eq!(shown, expected, "what {user} is shown by {}", style.name());
            assert_eq!(purchases.len(), expected.len(), "each product once");
        })
        .await;
}

/// What each user ordered: title and image of each product. `id` reads an id from an order.
pub fn shown_to_each<'a>(
    users: impl Iterator<Item = String>,
    products: impl Iterator<Item = (String, Look)>,
    orders: impl Iterator<Item = &'a Value>,
    id: impl Fn(&Value) -> String,
) -> BTreeMap<String, Shown> {
    let products: BTreeMap<String, Look> = products.collect();
    let mut expected: BTreeMap<String, Shown> = users.map(|user| (user, Shown::new())).collect();
    for order in orders {
        let shown = expected.entry(id(&order["user_id"])).or_default();
        let ids = order["product_ids"].as_array().into_iter().flatten();
        shown.extend(ids.map(|product| products[&id(product)].clone()));
    }
    expected
}

/// Title and image of a product.
pub fn look(product: &Value) -> Look {
    (text(&product["title"]), text(&product["image"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or("(none)").to_owned()
}
