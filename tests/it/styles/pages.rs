//! Paged lists: the same pages from all styles, in the API and in HTML.

use e2e::{Service, World};
use serde_json::{Value, json};

use super::{ASKING, products, run_again};

/// A user who ordered seven products: two alone, five at the same moment, one of them with the
/// smallest possible id. Returns the user's id.
async fn shopper(world: &World) -> String {
    let ada = world.user("ada").await;
    let things = products(world, 6).await;
    let nil = json!({
        "id": uuid::Uuid::nil(), "title": "Nil", "image": "https://example.com/nil.png"
    });
    let nil = world
        .client(Service::Products)
        .create("/products", &nil)
        .await;
    world.order(&ada, &[&things[5]]).await;
    let moment = [
        &things[3], &nil, &things[0], &things[5], &things[2], &things[1],
    ];
    world.order(&ada, &moment).await;
    world.order(&ada, &[&things[4], &nil]).await;
    world.caught_up().await;
    ada.id()
}

fn ids(page: &Value) -> Vec<String> {
    let purchases = page["purchases"].as_array().expect("purchases");
    let id = |one: &Value| one["product_id"].as_str().unwrap().to_owned();
    purchases.iter().map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_gives_the_same_pages() {
    let world = World::start_styles().await;
    let user = shopper(&world).await;
    let path = format!("/users/{user}/purchases");
    let full = world.client(Service::Purchases).get(&path).await.json;
    assert_eq!(full["next"], Value::Null);
    let all = ids(&full);
    assert_eq!(all.len(), 7);
    let mut moment = all[1..6].to_vec();
    moment.sort();
    assert_eq!(all[1..6], moment, "of the same moment by id");
    assert_eq!(all[1], uuid::Uuid::nil().to_string());

    let mut next = Some(format!("{path}?limit=2"));
    let mut seen = Vec::new();
    while let Some(page) = next {
        let replica = world.client(Service::Purchases).get(&page).await;
        assert_eq!(replica.status, 200, "{}", replica.text);
        for style in ASKING {
            // A link to a page of one style works in another.
            let other = world.client(style).get(&page).await.json;
            let name = style.name();
            assert_eq!(
                other["purchases"], replica.json["purchases"],
                "{name}: {page}"
            );
            assert_eq!(other["next"], replica.json["next"], "{name}: {page}");
        }
        seen.extend(ids(&replica.json));
        next = replica.json["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, all);
    let full = world
        .client(Service::Purchases)
        .get(&format!("{path}?limit=7"))
        .await;
    assert_eq!(
        full.json["next"],
        Value::Null,
        "there is no empty last page"
    );
    for style in Service::STYLES {
        for wrong in [
            "limit=0",
            "limit=1001",
            "limit=x",
            "limit=1&limit=1",
            "cursor=7",
            "cursor=",
        ] {
            let reply = world.client(style).get(&format!("{path}?{wrong}")).await;
            assert_eq!(reply.status, 400, "{wrong}: {}", reply.text);
        }
        let most = world.client(style).get(&format!("{path}?limit=1000")).await;
        assert_eq!(ids(&most.json), all);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_were_read_stay_right_while_orders_are_placed() {
    let world = World::start_styles().await;
    let user = shopper(&world).await;
    let path = format!("/users/{user}/purchases?limit=4");
    let first = world.client(Service::Purchases).get(&path).await.json;
    let late = world.product("Late").await;
    let body = json!({
        "user_id": user,
        "product_ids": [late.id(), first["purchases"][0]["product_id"]],
    });
    let orders = world.client(Service::Orders);
    let after = format!("/orders?after={}", late.position());
    orders.create(&after, &body).await;
    world.caught_up().await;
    for style in Service::STYLES {
        let next = first["next"].as_str().expect("a next page");
        let second = world.client(style).get_all(next, "purchases").await.json;
        let all = [ids(&first), ids(&second)].concat();
        let full = world.purchases_by(style, &user, "").await.json;
        assert_eq!(all, ids(&full), "{}", style.name());
        assert_eq!(all.len(), 8);
        assert_eq!(all[7], late.id());
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_pages_for_people_without_a_script() {
    let world = World::start_styles().await;
    let user = shopper(&world).await;
    let newest_first: Vec<String> = {
        let full = world.purchases(&user, "").await.json;
        let purchases = full["purchases"].as_array().unwrap().clone();
        let title = |one: &Value| one["title"].as_str().unwrap().to_owned();
        purchases.iter().rev().map(title).collect()
    };
    for style in Service::STYLES {
        let client = world.client(style);
        let get = async |path: &str| {
            let reply = client.get(path).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
            // The replica's page follows with one of its own.
            let scripts = reply.text.matches("<script").count();
            assert_eq!(scripts, usize::from(style == Service::Purchases), "{path}");
            reply.text
        };
        let first = get(&format!("/users/{user}?limit=3")).await;
        assert_eq!(titles(&first), newest_first[..3]);
        assert_eq!(link(&first, "prev"), None);
        let second = get(&link(&first, "next").unwrap()).await;
        assert_eq!(titles(&second), newest_first[3..6]);
        let last = get(&link(&second, "next").unwrap()).await;
        assert_eq!(titles(&last), newest_first[6..]);
        assert_eq!(link(&last, "next"), None);
        let back = get(&link(&last, "prev").unwrap()).await;
        assert_eq!(titles(&back), newest_first[3..6]);
        let begin = get(&link(&back, "prev").unwrap()).await;
        assert_eq!(titles(&begin), newest_first[..3]);
        assert_eq!(link(&begin, "prev"), None, "nothing is newer");
        assert!(get(&format!("/users/{user}")).await.contains("7 products"));
    }
    world.finish().await;
}

/// The titles on the page, in order.
fn titles(page: &str) -> Vec<String> {
    let cards = page.split("<h2>").skip(1);
    // The title is a link.
    let title = |card: &str| {
        card.split("</a>")
            .next()?
            .split('>')
            .nth(1)
            .map(str::to_owned)
    };
    cards.map(|card| title(card).unwrap()).collect()
}

/// The target of the link with this relation.
fn link(page: &str, rel: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("rel=\"{rel}\" href=\""))?;
    let address = rest.split('"').next().expect("an address");
    Some(address.replace("&#38;", "&").replace("&amp;", "&"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_to_be_put_together_is_refused_and_said() {
    let mut world = World::start_styles().await;
    let user = shopper(&world).await;
    let path = format!("/users/{user}/purchases?limit=2");
    for style in ASKING {
        run_again(&mut world, style, &["--gathered-max", "6"]).await;
        let refused = world.client(style).get(&path).await;
        assert_eq!(refused.status, 507, "{}", refused.text);
        assert_eq!(refused.content_type, "application/problem+json");
        assert!(
            refused.text.contains("more than 6 products"),
            "{}",
            refused.text
        );
        run_again(&mut world, style, &["--gathered-max", "7"]).await;
        let answered = world.client(style).get(&path).await;
        assert_eq!(answered.status, 200, "{}", answered.text);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_all_zeros_is_listed() {
    let world = World::start_styles().await;
    let (ada, nil) = (world.user("ada").await, uuid::Uuid::nil());
    let product = json!({"id": nil, "title": "Nil", "image": "https://example.com/nil.png"});
    let products = world.client(Service::Products);
    let product = products.create("/products", &product).await;
    world.product("Mug").await;
    let first = products.get("/products?limit=1").await.json;
    assert_eq!(first["items"][0]["id"], product.id());
    let second = products.get(first["next"].as_str().unwrap()).await.json;
    assert_eq!(second["items"][0]["title"], "Mug");
    let order = json!({"id": nil, "user_id": ada.id(), "product_ids": [product.id()]});
    let orders = world.client(Service::Orders);
    let path = format!("/orders?after={},{}", ada.position(), product.position());
    orders.create(&path, &order).await;
    let listed = orders
        .get(&format!("/orders?user_id={}", ada.id()))
        .await
        .json;
    assert_eq!(listed["items"][0]["id"], nil.to_string());
    world.caught_up().await;
    for style in Service::STYLES {
        let shown = world.purchases_by(style, &ada.id(), "").await.json;
        assert_eq!(shown["purchases"][0]["title"], "Nil", "{}", style.name());
    }
    world.finish().await;
}
