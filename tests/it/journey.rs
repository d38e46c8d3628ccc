//! The main journeys, and what happens when services come and go.

use e2e::world::{after, titles};
use e2e::{Service, World, eventually};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_every_product_they_ever_ordered_once() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    let first = world.order(&ada, &[&mug]).await;
    let second = world.order(&ada, &[&tent, &mug, &mug]).await;

    let all = after(&[&bob, &tent, &second]);
    let reply = world.purchases(&ada.id(), &all).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let purchases = reply.json["purchases"].as_array().unwrap();
    assert_eq!(titles(&reply.json), ["Mug", "Tent"]);
    assert_eq!(purchases[0]["title"], "Mug", "ordered first, shown first");
    assert_eq!(purchases[0]["image"], "https://example.com/Mug.png");
    assert_eq!(purchases[0]["first_ordered_at"], first.json["placed_at"]);
    assert_eq!(purchases[0]["last_ordered_at"], second.json["placed_at"]);
    assert_eq!(purchases[0]["times"], 2, "an order counts once");
    assert_eq!(purchases[1]["times"], 1);
    assert_eq!(
        reply.json["as_of"],
        json!({"orders": 2, "products": 2, "users": 2})
    );
    assert_eq!(reply.position(), "orders:2,products:2,users:2");
    assert_eq!(world.titles(&bob.id()).await, [""; 0]);

    let page = world
        .client(Service::Purchases)
        .get(&format!("/users/{}", ada.id()))
        .await;
    assert_eq!(page.content_type, "text/html; charset=utf-8");
    for shown in ["Mug", "Tent", "https://example.com/Mug.png", "2 products"] {
        assert!(page.text.contains(shown), "{shown} is not on the page");
    }
    let start = world.client(Service::Purchases).get("/").await;
    assert!(start.text.contains(&ada.id()) && start.text.contains("2 products"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_page_leads_to_a_user_and_says_what_is_no_id() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    world.caught_up().await;
    let purchases = world.client(Service::Purchases);
    let found = purchases.get(&format!("/?user=%20{}%20", ada.id())).await;
    assert!(found.text.contains("0 products"), "{}", found.text);
    let wrong = purchases.get("/?user=ada").await;
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.text.contains("“ada” is not a user id"),
        "{}",
        wrong.text
    );
    let unknown = purchases
        .get(&format!("/users/{}", uuid::Uuid::nil()))
        .await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.text.contains("No such user"));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_product_is_shown_by_its_new_name() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    let path = format!("/products/{}", mug.id());
    let products = world.client(Service::Products);
    let request = products
        .request(Method::PATCH, &path)
        .json(&json!({"title": "Cup"}));
    let changed = e2e::client::send(request).await;
    assert_eq!(
        (changed.status.as_u16(), changed.position()),
        (200, "products:2")
    );
    assert_eq!(
        changed.json["image"], "https://example.com/Mug.png",
        "what is left out stays"
    );

    let again = products
        .request(Method::PATCH, &path)
        .json(&json!({"title": "Cup"}));
    let again = e2e::client::send(again).await;
    assert_eq!(
        again.position(),
        "products:2",
        "a change to the same values publishes nothing"
    );
    assert_eq!(products.get(&path).await.position(), "products:2");
    assert_eq!(world.titles(&ada.id()).await, ["Cup"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_user_is_gone_from_every_store_and_stays_so() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    let order = world.order(&ada, &[&mug]).await;
    assert_eq!(world.titles(&ada.id()).await, ["Mug"]);

    let users = world.client(Service::Users);
    let path = format!("/users/{}", ada.id());
    let erased = e2e::client::send(users.request(Method::DELETE, &path)).await;
    assert_eq!(erased.status, 204);
    let again = e2e::client::send(users.request(Method::DELETE, &path)).await;
    assert_eq!(
        (again.status.as_u16(), again.position()),
        (204, erased.position())
    );
    assert_eq!(users.get(&path).await.status, 404);
    assert_eq!(
        world.purchases(&ada.id(), erased.position()).await.status,
        404
    );

    let orders = world.client(Service::Orders);
    let body = json!({"user_id": ada.id(), "product_ids": [mug.id()]});
    let refused = orders
        .post(&format!("/orders?after={}", erased.position()), &body)
        .await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert_eq!(
        orders.get(&format!("/orders/{}", order.id())).await.status,
        404
    );
    let same_id = json!({"id": ada.id(), "name": "ada", "email": "ada@example.com"});
    assert_eq!(users.post("/users", &same_id).await.status, 409);
    world.caught_up().await;
    for (service, rows) in [
        (Service::Orders, "SELECT count(*) FROM placed_order"),
        (Service::Purchases, "SELECT count(*) FROM purchase"),
    ] {
        let path = world.database(service);
        eventually("what the user ordered to be removed", || {
            let db = rusqlite::Connection::open(&path).unwrap();
            let left: i64 = db.query_row(rows, [], |row| row.get(0)).unwrap();
            std::future::ready(if left == 0 { Ok(()) } else { Err(left) })
        })
        .await;
    }
    for service in Service::ALL {
        world.stop(service).await;
        let bytes = std::fs::read(world.database(service)).unwrap();
        let is_there = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(
            !is_there(b"ada@example.com"),
            "{service:?} has not overwritten it"
        );
        assert!(is_there(b"CREATE TABLE"), "{service:?} is readable at all");
        world.run(service).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uploaded_image_is_served_and_shown() {
    let world = World::start().await;
    let products = world.client(Service::Products);
    let svg = r#"<svg xmlns="http://www.w3.org/2000/svg"/>"#;
    let upload = || {
        let request = products.request(Method::POST, "/images");
        e2e::client::send(request.header("content-type", "image/svg+xml").body(svg))
    };
    let image = upload().await.json["image"].as_str().unwrap().to_owned();
    assert_eq!(
        upload().await.json["image"],
        image.as_str(),
        "the same picture, the same path"
    );
    let served = products.get(&image).await;
    assert_eq!(
        (served.content_type.as_str(), served.text.as_str()),
        ("image/svg+xml", svg)
    );

    let mug = products
        .create("/products", &json!({"title": "Mug", "image": image}))
        .await;
    let ada = world.user("ada").await;
    let order = world.order(&ada, &[&mug]).await;
    let page = format!("/users/{}?after={}", ada.id(), after(&[&mug, &order]));
    let page = world.client(Service::Purchases).get(&page).await;
    assert!(page.text.contains(&image), "{}", page.text);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_accept_writes_while_purchases_is_down_and_it_catches_up() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    world.stop(Service::Purchases).await;
    let tent = world.product("Tent").await;
    world.order(&ada, &[&tent]).await;
    let bob = world.user("bob").await;
    world.order(&bob, &[&tent, &mug]).await;
    world.run(Service::Purchases).await;
    assert_eq!(world.titles(&ada.id()).await, ["Mug", "Tent"]);
    assert_eq!(world.titles(&bob.id()).await, ["Mug", "Tent"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn purchases_answers_while_all_sources_are_down() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    for source in Service::SOURCES {
        world.stop(source).await;
    }
    let reply = world.purchases(&ada.id(), "").await;
    assert_eq!(titles(&reply.json), ["Mug"]);
    for source in Service::SOURCES {
        world.run(source).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_come_in_pages() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(world.order(&ada, &[&mug, &mug]).await.id());
    }
    let orders = world.client(Service::Orders);
    let mut next = Some(format!("/orders?user_id={}&limit=2", ada.id()));
    let mut seen = Vec::new();
    let mut pages = 0;
    while let Some(path) = next {
        let page = orders.get(&path).await.json;
        for order in page["items"].as_array().unwrap() {
            assert_eq!(order["product_ids"].as_array().unwrap().len(), 2);
            seen.push(order["id"].as_str().unwrap().to_owned());
        }
        next = page["next"].as_str().map(str::to_owned);
        pages += 1;
    }
    placed.sort();
    assert_eq!((seen, pages), (placed, 3));

    let products = world.client(Service::Products);
    let tent = world.product("Tent").await;
    let some = products
        .get(&format!(
            "/products?ids={},{}",
            tent.id(),
            uuid::Uuid::nil()
        ))
        .await;
    assert_eq!(some.json["items"].as_array().unwrap().len(), 1);
    let all = products.get("/products?limit=1").await.json;
    let second = products.get(all["next"].as_str().unwrap()).await.json;
    assert_eq!(second["items"].as_array().unwrap().len(), 1);
    assert_eq!(second["next"], serde_json::Value::Null);
    world.finish().await;
}

/// Every order of the four services, with the broker started first, in the middle, or last.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_in_which_parts_start_does_not_matter() {
    for (round, services) in orders_of(&Service::ALL).into_iter().enumerate() {
        let mut world = World::anywhere().empty();
        world.broker.kill().expect("kill the broker");
        let broker_before = round % (services.len() + 1);
        for (index, service) in services.iter().enumerate() {
            if index == broker_before {
                world.broker.restart().expect("start the broker");
            }
            world.run(*service).await;
        }
        if broker_before == services.len() {
            world.broker.restart().expect("start the broker");
        }
        let ada = world.user("ada").await;
        let mug = world.product("Mug").await;
        let order = world.order(&ada, &[&mug]).await;
        world.caught_up().await;
        let shown = world.purchases(&ada.id(), &after(&[&mug, &order])).await;
        assert_eq!(
            titles(&shown.json),
            ["Mug"],
            "started as {services:?}: {}",
            shown.text
        );
        world.finish().await;
    }
}

fn orders_of(services: &[Service]) -> Vec<Vec<Service>> {
    if services.is_empty() {
        return vec![vec![]];
    }
    let mut orders = Vec::new();
    for (index, first) in services.iter().enumerate() {
        let mut rest = services.to_vec();
        rest.remove(index);
        for mut tail in orders_of(&rest) {
            tail.insert(0, *first);
            orders.push(tail);
        }
    }
    orders
}
