//! The broker stops, is killed, and comes back.

use e2e::{Service, World, eventually};
use futures_util::StreamExt as _;
use serde_json::json;

/// The ids of a source's events, in stream order.
async fn ids_in_stream(world: &World, source: Service) -> Vec<String> {
    let stream = world.stream(source).await;
    let last = stream.get_info().await.unwrap().state.last_sequence;
    let mut ids = Vec::new();
    for sequence in 1..=last {
        let event = stream.get_raw_message(sequence).await.unwrap();
        let id = event.headers.get("Nats-Msg-Id").unwrap().as_str();
        ids.push(id.rsplit('.').next().unwrap().to_owned());
    }
    ids
}

fn numbers(upto: usize) -> Vec<String> {
    (1..=upto).map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_without_the_broker_and_are_drained_in_order() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    world.broker.kill().unwrap();

    let orders = world.client(Service::Orders);
    let body = json!({"user_id": ada.id(), "product_ids": [mug.id()]});
    for _ in 0..60 {
        orders.create("/orders", &body).await;
    }
    let tent = world.product("Tent").await;
    let bob = world.user("bob").await;
    let shown = world.purchases(&ada.id(), "").await;
    assert_eq!(shown.status, 200, "reads work, too");

    world.broker.restart().unwrap();
    world.order(&bob, &[&tent]).await;
    assert_eq!(world.titles(&ada.id()).await, ["Mug"]);
    assert_eq!(world.titles(&bob.id()).await, ["Tent"]);
    assert_eq!(ids_in_stream(&world, Service::Orders).await, numbers(62));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_killed_and_restarted_under_load_loses_doubles_and_reorders_nothing() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    let orders = world.client(Service::Orders);
    let body = json!({"user_id": ada.id(), "product_ids": [mug.id()]});
    let writes = futures_util::stream::iter(0..400)
        .map(|_| orders.create("/orders", &body))
        .buffer_unordered(8)
        .count();
    let kills = async {
        for _ in 0..3 {
            // Once some of the load has arrived, in the middle of the rest.
            let before = world.heads().await.get("orders");
            eventually("more orders", || async {
                let now = world.heads().await.get("orders");
                if now >= (before + 20).min(401) {
                    Ok(())
                } else {
                    Err(now)
                }
            })
            .await;
            world.broker.kill().unwrap();
            world.broker.restart().unwrap();
        }
    };
    let (written, ()) = tokio::join!(writes, kills);
    assert_eq!(written, 400);
    world.caught_up().await;
    assert_eq!(ids_in_stream(&world, Service::Orders).await, numbers(401));
    assert_eq!(world.titles(&ada.id()).await, ["Mug"]);
    world.finish().await;
}
