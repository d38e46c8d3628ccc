//! The requests and their order, and repeated runs.

use std::sync::Arc;

use serde_json::json;
use shop_import::{Kind, mapped};
use terminal::Exit;
use tokio::sync::Barrier;

use crate::shop::Shop;
use crate::tool::{Files, import, users};

#[tokio::test]
async fn records_arrive_under_mapped_ids() {
    let (shop, files) = (Shop::open().await, Files::small());
    let summary = import(&shop, &files, &[]).await;

    assert_eq!(summary.exit(), Exit::Done);
    let counts =
        [&summary.users, &summary.products, &summary.orders].map(|c| (c.imported, c.failed));
    assert_eq!(counts, [(2, 0), (3, 0), (2, 0)]);
    let id = |kind, foreign| mapped(kind, foreign).to_string();
    let (order, jug, cup) = (
        id(Kind::Orders, "2"),
        id(Kind::Products, "3"),
        id(Kind::Products, "1"),
    );
    assert_eq!(
        shop.records("orders")[&order],
        json!({"id": order, "user_id": id(Kind::Users, "2"), "product_ids": [jug, jug, cup]})
    );
    assert_eq!(
        shop.records("products")[&cup],
        json!({"id": cup, "title": "Cup", "image": "http://i/1"})
    );
}

#[tokio::test]
async fn orders_come_last_and_wait_for_the_positions_of_users_and_products() {
    let (shop, files) = (Shop::open().await, Files::small());
    let summary = import(&shop, &files, &[]).await;

    assert_eq!(
        (summary.users.position, summary.products.position),
        (Some(2), Some(3))
    );
    let kinds: Vec<_> = shop
        .books()
        .requests
        .iter()
        .map(|request| request.kind.clone())
        .collect();
    assert_eq!(kinds[5..], ["orders", "orders"]);
    for request in &shop.books().requests {
        let expected = (request.kind == "orders").then_some("users:2,products:3");
        assert_eq!(request.after.as_deref(), expected, "{request:?}");
    }
}

#[tokio::test]
async fn orders_alone_wait_for_nothing() {
    let (shop, files) = (Shop::open().await, Files::new());
    files.write(
        "orders",
        "{\"id\": 1, \"user_id\": 1, \"product_ids\": []}\n",
    );
    import(&shop, &files, &[]).await;
    assert_eq!(shop.requests("orders")[0].after, None);
}

#[tokio::test]
async fn a_repeated_import_sends_the_same_and_doubles_nothing() {
    let (shop, files) = (Shop::open().await, Files::small());
    let first = import(&shop, &files, &["--in-flight=1"]).await;
    let sent = |shop: &Shop| {
        let mut sent: Vec<_> = shop
            .books()
            .requests
            .drain(..)
            .map(|request| (request.key, request.body.to_string()))
            .collect();
        sent.sort();
        sent
    };
    let before = (sent(&shop), shop.records("orders"));
    let second = import(&shop, &files, &["--in-flight=1"]).await;

    assert_eq!((second.total().imported, second.exit()), (7, Exit::Done));
    assert_eq!(second.products.position, first.products.position);
    assert_eq!((sent(&shop), shop.records("orders")), before);
}

#[tokio::test]
async fn a_changed_line_has_a_key_of_its_own_and_is_refused_for_its_id() {
    let (shop, files) = (Shop::open().await, Files::of_users(2));
    import(&shop, &files, &[]).await;
    files.write("users", users(2).replace("user 2", "another"));
    let summary = import(&shop, &files, &[]).await;

    assert_eq!((summary.users.imported, summary.users.failed), (1, 1));
    let id = mapped(Kind::Users, "2").to_string();
    let mut keys: Vec<_> = shop
        .requests("users")
        .into_iter()
        .filter(|r| r.body["id"] == id)
        .map(|r| r.key)
        .collect();
    keys.dedup();
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert_eq!(shop.records("users")[&id]["name"], "user 2");
}

#[tokio::test]
async fn as_many_requests_are_under_way_as_allowed_and_no_more() {
    let (shop, files) = (Shop::open().await, Files::of_users(32));
    shop.books().gate = Some(Arc::new(Barrier::new(8)));
    let summary = import(&shop, &files, &["--in-flight=8"]).await;

    assert_eq!(summary.users.imported, 32);
    assert_eq!(shop.books().under_way_max, 8);
}

#[tokio::test]
async fn users_and_products_are_sent_at_the_same_time() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    files.write(
        "products",
        "{\"id\": 1, \"title\": \"Cup\", \"image\": \"http://i/1\"}\n",
    );
    shop.books().gate = Some(Arc::new(Barrier::new(2)));
    assert_eq!(import(&shop, &files, &[]).await.total().imported, 2);
}

#[tokio::test]
async fn a_file_of_many_lines_arrives_whole() {
    let (shop, files) = (Shop::open().await, Files::of_users(5_000));
    let summary = import(&shop, &files, &[]).await;
    assert_eq!(
        (summary.users.imported, summary.users.position),
        (5_000, Some(5_000))
    );
    assert_eq!(shop.records("users").len(), 5_000);
}
