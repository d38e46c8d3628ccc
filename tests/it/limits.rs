//! A broker with a small message limit: everything works, in more messages.

use cli::Exit;
use e2e::operator::verify;
use e2e::{Reply, Service, World};
use serde_json::json;
use tempfile::TempDir;

/// Orders of up to a thousand lines and products with long image addresses: more than one answer
/// can hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_shop_is_verified_and_asked_where_the_broker_takes_64_kib() {
    let broker = broker::Broker::start_in_temp_with("max_payload: 65536").unwrap();
    let mut world = World::on([broker], TempDir::new().unwrap()).empty();
    world.run_all().await;
    world.run(Service::RequestReply).await;
    world.in_touch().await;
    let ada = world.user("ada").await;
    let mut products: Vec<Reply> = Vec::new();
    for number in 0..40 {
        let image = format!("https://example.com/{}/{number}.png", "x".repeat(1900));
        let body = json!({ "title": format!("Mug {number}"), "image": image });
        let client = world.client(Service::Products);
        products.push(client.create("/products", &body).await);
    }
    let known = format!("{},{}", ada.position(), products[39].position());
    let mut after = known.clone();
    for lines in [100, 400, 700, 1000] {
        let ids: Vec<String> = products.iter().map(Reply::id).collect();
        let ids: Vec<&String> = ids.iter().cycle().take(lines).collect();
        let body = json!({ "user_id": ada.id(), "product_ids": ids });
        let client = world.client(Service::Orders);
        let placed = client
            .create(&format!("/orders?after={known}"), &body)
            .await;
        after = format!("{known},{}", placed.position());
    }
    for style in [Service::Purchases, Service::RequestReply] {
        let bought = world.purchases_by(style, &ada.id(), &after).await;
        assert_eq!(bought.status, 200, "{}: {}", style.name(), bought.text);
        let bought = bought.json["purchases"].as_array().unwrap();
        assert_eq!(bought.len(), 40, "{}", style.name());
        assert!(bought.iter().all(|product| product["image"].is_string()));
    }
    let report = verify(&world).await;
    assert_eq!(report.exit(), Exit::Done, "{report}");
    world.finish().await;
}
