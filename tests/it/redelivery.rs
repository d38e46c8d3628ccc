//! Events that come twice, and events published by hand.

use async_nats::HeaderMap;
use e2e::{Service, World, eventually};
use headwater::Event;
use serde_json::json;
use shop_events::{OrderPlaced, ProductCreated, UserRegistered};

/// Publishes every event of the stream again, with its id.
async fn publish_again(world: &World, source: Service) {
    let jetstream = async_nats::jetstream::new(world.nats().await);
    let stream = world.stream(source).await;
    let info = stream.get_info().await.unwrap();
    for sequence in 1..=info.state.last_sequence {
        let event = stream.get_raw_message(sequence).await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            "Nats-Msg-Id",
            event.headers.get("Nats-Msg-Id").unwrap().as_str(),
        );
        eventually("the dedupe window to pass", || async {
            let (headers, payload) = (headers.clone(), event.payload.clone());
            let subject = event.subject.clone();
            let ack = jetstream
                .publish_with_headers(subject, headers, payload)
                .await
                .unwrap();
            let ack = ack.await.unwrap();
            if ack.duplicate {
                Err("refused as a duplicate")
            } else {
                Ok(())
            }
        })
        .await;
    }
    let now = stream.get_info().await.unwrap().state.last_sequence;
    assert!(
        now >= 2 * info.state.last_sequence,
        "they are all in the stream twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_published_twice_past_the_window_is_applied_once() {
    let mut world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    world.order(&ada, &[&mug]).await;
    world.order(&bob, &[&mug, &tent]).await;
    let renamed = json!({"title": "Cup"});
    let products = world.client(Service::Products);
    let path = format!("/products/{}", mug.id());
    e2e::client::send(
        products
            .request(reqwest::Method::PATCH, &path)
            .json(&renamed),
    )
    .await;
    let users = world.client(Service::Users);
    let path = format!("/users/{}", bob.id());
    e2e::client::send(users.request(reqwest::Method::DELETE, &path)).await;
    world.caught_up().await;
    let before = world.purchases(&ada.id(), "").await.json;
    for source in Service::SOURCES {
        publish_again(&world, source).await;
    }
    // New events follow the repeated ones: once they are applied, the repeated ones were read.
    let lamp = world.product("Lamp").await;
    let carl = world.user("carl").await;
    world.order(&carl, &[&lamp]).await;
    world.caught_up().await;
    let after = world.purchases(&ada.id(), "").await.json;
    assert_eq!(
        after["purchases"], before["purchases"],
        "an old name does not come back"
    );
    assert_eq!(
        world.purchases(&bob.id(), "").await.status,
        404,
        "nor does an erased user"
    );

    world.stop(Service::Purchases).await;
    world.delete_database(Service::Purchases);
    world.run(Service::Purchases).await;
    assert_eq!(world.titles(&ada.id()).await, ["Cup"]);
    assert_eq!(world.purchases(&bob.id(), "").await.status, 404);
    world.finish().await;
}

async fn publish_by_hand<E: Event>(world: &World, subject: &str, event: &E, headers: HeaderMap) {
    let client = world.nats().await;
    let payload = event.encode_to_vec().into();
    client
        .publish_with_headers(subject.to_owned(), headers, payload)
        .await
        .unwrap();
    client.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_published_by_hand_is_applied_and_does_not_stop_the_relay() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    let (user, product) = (
        uuid::Uuid::now_v7().to_string(),
        uuid::Uuid::now_v7().to_string(),
    );
    let registered = UserRegistered {
        user_id: user.clone(),
        registered_at: None,
    };
    let created = ProductCreated {
        product_id: product.clone(),
        title: "Handmade".to_owned(),
        image: "https://example.com/h.png".to_owned(),
    };
    let placed = OrderPlaced {
        order_id: uuid::Uuid::now_v7().to_string(),
        user_id: user.clone(),
        product_ids: vec![product.clone()],
        placed_at: None,
    };
    let mut own_id = HeaderMap::new();
    own_id.insert("Nats-Msg-Id", "something-of-their-own");
    publish_by_hand(
        &world,
        "users.v1.registered.0",
        &registered,
        HeaderMap::new(),
    )
    .await;
    publish_by_hand(&world, "products.v1.created.63", &created, own_id).await;
    publish_by_hand(&world, "orders.v1.placed", &placed, HeaderMap::new()).await;

    // The relays continue after it, and `orders` knows the foreign user and product.
    let tent = world.product("Tent").await;
    world.order(&ada, &[&tent]).await;
    let body = json!({"user_id": user, "product_ids": [product, tent.id()]});
    let orders = world.client(Service::Orders);
    eventually("orders to know them", || async {
        let reply = orders.post("/orders", &body).await;
        if reply.status == 201 {
            Ok(())
        } else {
            Err(reply.text)
        }
    })
    .await;
    assert_eq!(world.titles(&ada.id()).await, ["Mug", "Tent"]);
    assert_eq!(world.titles(&user).await, ["Handmade", "Tent"]);
    world.stop(Service::Purchases).await;
    world.delete_database(Service::Purchases);
    world.run(Service::Purchases).await;
    assert_eq!(
        world.titles(&user).await,
        ["Handmade", "Tent"],
        "a replay gives the same"
    );
    world.finish().await;
}
