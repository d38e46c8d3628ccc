//! Reads that wait for a write.

use std::time::{Duration, Instant};

use e2e::world::{after, titles};
use e2e::{Service, World};
use futures_util::future::join_all;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn after_never_shows_an_older_state_under_load() {
    let world = World::start().await;
    let products = [
        world.product("A").await,
        world.product("B").await,
        world.product("C").await,
    ];
    let (orders, purchases) = (
        world.client(Service::Orders),
        world.client(Service::Purchases),
    );
    let (shop, products) = (&world, &products);
    let shopper = |number: usize| {
        let (orders, purchases) = (orders.clone(), purchases.clone());
        async move {
            for round in 0..5 {
                let user = shop.user(&format!("u{number}-{round}")).await;
                let mut expected = Vec::new();
                for product in products {
                    let order = shop.order(&user, &[product]).await;
                    expected.push(product.json["title"].as_str().unwrap().to_owned());
                    let path = format!(
                        "/users/{}/purchases?after={}",
                        user.id(),
                        after(&[product, &order])
                    );
                    let seen = purchases.get(&path).await;
                    assert_eq!(titles(&seen.json), expected, "{}", seen.text);

                    let listed = orders.get(&format!("/orders?user_id={}", user.id())).await;
                    assert_eq!(
                        listed.json["items"].as_array().unwrap().len(),
                        expected.len()
                    );
                }
            }
        }
    };
    join_all((0..16).map(shopper)).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_does_not_come_is_answered_with_503_and_retry_after() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let path = format!("/users/{}/purchases?after=orders:1000", ada.id());
    let started = Instant::now();
    let request = world
        .client(Service::Purchases)
        .request(reqwest::Method::GET, &path);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let problem: serde_json::Value = response.json().await.unwrap();
    assert!(
        problem["detail"].as_str().unwrap().contains("orders:1000"),
        "{problem}"
    );
    assert!(
        started.elapsed() >= Duration::from_secs(4),
        "it waited for the deadline"
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_header_of_a_write_can_be_sent_with_a_read_as_it_is() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let path = format!("/users/{}/purchases", ada.id());
    let request = world
        .client(Service::Purchases)
        .request(reqwest::Method::GET, &path);
    let reply = e2e::client::send(request.header("headwater-position", ada.position())).await;
    assert_eq!((reply.status.as_u16(), titles(&reply.json).len()), (200, 0));
    for (wrong, status) in [
        ("orders", 400),
        ("orders:x", 400),
        ("invoices:1", 400),
        ("", 400),
    ] {
        let reply = world.purchases(&ada.id(), "").await;
        assert_eq!(reply.status, 200);
        let path = format!("{path}?after={wrong}");
        let reply = world.client(Service::Purchases).get(&path).await;
        assert_eq!(reply.status, status, "{wrong}: {}", reply.text);
        assert_eq!(reply.content_type, "application/problem+json");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_waits_for_the_user_that_it_is_for() {
    let mut world = World::start().await;
    let mug = world.product("Mug").await;
    world.caught_up().await;
    world.broker.pause().unwrap();
    let ada = world.user("ada").await;
    let orders = world.client(Service::Orders);
    let body = json!({"user_id": ada.id(), "product_ids": [mug.id()]});
    let early = orders.post("/orders", &body).await;
    assert_eq!(
        early.status, 422,
        "unknown yet, and no source is asked: {}",
        early.text
    );
    let path = format!("/orders?after={}", ada.position());
    let waiting = orders.post(&path, &body);
    let resumed = async { world.broker.resume().unwrap() };
    let (placed, ()) = tokio::join!(waiting, resumed);
    assert_eq!(placed.status, 201, "{}", placed.text);
    assert_eq!(world.titles(&ada.id()).await, ["Mug"]);
    world.broker.restart().unwrap();
    world.finish().await;
}
