//! Whether everything agrees with the model after all faults.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use headwater::operator::{RebuildState, RebuildStatus, StatusAnswer};
use serde_json::json;

use super::breaker::{Breaker, begin_rebuild};
use super::client::expect;
use super::shop::{Seen, Shop};
use super::watch::seen;
use crate::eventually;
use crate::world::{Service, World};

/// How many reads run concurrently.
const AT_ONCE: usize = 8;

/// Compares outboxes, streams, health, and the purchases of at most `most` users, a different
/// selection in each `round`.
///
/// # Errors
/// Something differs.
pub(super) async fn all(
    breaker: &mut Breaker,
    shop: &Shop,
    round: usize,
    most: usize,
) -> anyhow::Result<()> {
    let world = &breaker.world;
    for source in Service::SOURCES {
        let status = status(world, source).await;
        let effects = shop.book().expected.effects(source);
        ensure!(
            status.head == effects,
            "{} acknowledged {effects} effects, its outbox has {}",
            source.name(),
            status.head
        );
        let streams = &breaker.streams;
        let in_stream = streams
            .check(world, source, &status.epoch, status.head)
            .await?;
        ensure!(in_stream <= status.head, "more events than positions");
    }
    world.caught_up().await;
    orders_caught_up(world, shop).await;
    for service in Service::ALL {
        world.expect_well(service).await;
    }
    store_matches_rebuild(world).await?;
    breaker.tally.reads += answers_were_right(shop)?;
    let users: Vec<String> = {
        let book = shop.book();
        let users = book.expected.users();
        let stride = users.len().div_ceil(most).max(1);
        users
            .skip(round % stride)
            .step_by(stride)
            .cloned()
            .collect()
    };
    breaker.tally.checks += users.len() as u64;
    stream::iter(users)
        .map(|id| user_is_shown(shop, id))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Now the model is complete: checks that each answer amid the faults was what the model gives for
/// the positions in it. Returns the number of answers.
fn answers_were_right(shop: &Shop) -> anyhow::Result<u64> {
    let mut book = shop.book();
    let all = std::mem::take(&mut book.seen);
    for Seen { user, as_of, shown } in &all {
        let expected = book.expected.shown_at(user, as_of);
        ensure!(
            expected.as_ref() == Some(shown),
            "user {user} as of {as_of}: expected {expected:#?}\nbut was shown {shown:#?}"
        );
    }
    Ok(all.len() as u64)
}

/// Checks that every service shows the user, or that none does after an erasure.
async fn user_is_shown(shop: &Shop, id: String) -> anyhow::Result<()> {
    let get =
        |service: Service, path: String| async move { shop.service(service).get(&path).await };
    let (expected, orders) = {
        let model = &shop.book().expected;
        (model.shown(&id), model.orders(&id))
    };
    let registered = get(Service::Users, format!("/users/{id}")).await;
    let purchases = get(
        Service::Purchases,
        format!("/users/{id}/purchases?limit=1000"),
    )
    .await;
    if let Some(expected) = expected {
        expect(&registered, 200)?;
        let shown = seen(id.clone(), &purchases)?.shown;
        ensure!(
            shown == expected,
            "user {id}: expected {expected:#?}\nbut purchases shows {shown:#?}"
        );
    } else {
        expect(&registered, 404).context("an erased user in users")?;
        expect(&purchases, 404).context("an erased user in purchases")?;
    }
    orders_are(shop, &id, &orders).await
}

async fn orders_are(shop: &Shop, user: &str, expected: &BTreeSet<String>) -> anyhow::Result<()> {
    let path = format!("/orders?user_id={user}&limit=500");
    let reply = shop.service(Service::Orders).get(&path).await;
    expect(&reply, 200)?;
    let items = reply.json["items"].as_array().context("a page of orders")?;
    ensure!(reply.json["next"].is_null(), "user {user} has more orders");
    let ids = items.iter().filter_map(|order| order["id"].as_str());
    let ids: BTreeSet<String> = ids.map(str::to_owned).collect();
    ensure!(
        ids == *expected,
        "user {user}: expected the orders {expected:?}, there are {ids:?}"
    );
    Ok(())
}

/// Waits until `orders` has applied all users and products. Only then does it refuse an order for
/// an unknown user.
async fn orders_caught_up(world: &World, shop: &Shop) {
    let heads = world.heads().await;
    let after = format!(
        "users:{},products:{}",
        heads.get("users"),
        heads.get("products")
    );
    let nobody = uuid::Uuid::nil();
    let body = json!({ "user_id": nobody, "product_ids": [nobody] });
    eventually("orders to catch up", || async {
        let path = format!("/orders?after={after}");
        let reply = shop.service(Service::Orders).post(&path, &body).await;
        if reply.status == 422 {
            Ok(())
        } else {
            Err(reply.text)
        }
    })
    .await;
}

/// Lets `purchases` verify its store, which must find no difference.
async fn store_matches_rebuild(world: &World) -> anyhow::Result<()> {
    eventually("a verification to begin", || async {
        let begun = begin_rebuild(world, "verify").await;
        begun.map_err(|error| format!("{error:#}"))
    })
    .await;
    let client = world.nats().await;
    let status: RebuildStatus = eventually("a verification", || async {
        let reply = client.request("headwater.purchases.fold", "".into()).await;
        let reply = reply.map_err(|error| error.to_string())?;
        let status: RebuildStatus =
            serde_json::from_slice(&reply.payload).map_err(|error| error.to_string())?;
        match status.state {
            RebuildState::Done | RebuildState::Failed => Ok(status),
            _ => Err(format!("{status:?}")),
        }
    })
    .await;
    let differences = status.differences.as_ref().map(|found| found.count);
    ensure!(
        differences == Some(0),
        "`verify` found differences or failed: {status:?}"
    );
    Ok(())
}

async fn status(world: &World, source: Service) -> StatusAnswer {
    let client = world.nats().await;
    let subject = format!("headwater.{}.status", source.name());
    eventually("a status", || async {
        let reply = client.request(subject.clone(), "".into()).await;
        let reply = reply.map_err(|error| error.to_string())?;
        serde_json::from_slice(&reply.payload).map_err(|error| error.to_string())
    })
    .await
}
