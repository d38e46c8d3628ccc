//! How many questions an answer costs, as in docs/styles.md.

use std::collections::BTreeMap;

use e2e::{Service, World};
use futures_util::{StreamExt as _, stream};
use headwater::Positions;

use super::{products, same_answer};

/// More than one page of either style, and more than one chunk.
const ORDERS: usize = 510;
const PRODUCTS: usize = 250;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_costs_as_many_questions_as_documented_however_much_was_ordered() {
    let world = World::start_styles().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let things = products(&world, PRODUCTS).await;
    let newest = things.iter().max_by_key(|thing| position(thing)).unwrap();
    // After this one, `orders` knows all the others.
    world.order(&ada, &[newest]).await;
    let placed: Vec<_> = stream::iter(1..ORDERS)
        .map(|n| {
            let (world, ada, thing) = (&world, &ada, &things[n % PRODUCTS]);
            async move { world.order(ada, &[thing]).await }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    assert_eq!(placed.len(), ORDERS - 1);

    let before = asked(&world).await;
    world.caught_up().await;
    for style in Service::STYLES {
        let path = format!("/users/{}/purchases?limit=1000", ada.id());
        let reply = world.client(style).get(&path).await;
        assert_eq!(reply.json["purchases"].as_array().unwrap().len(), PRODUCTS);
    }
    let after = asked(&world).await;
    let cost =
        |style: Service, source: &str| after[&style].get(source) - before[&style].get(source);
    for (style, orders, products) in [
        // 1 + ceil(510 / 100) + ceil(250 / 100)
        (Service::Composition, 6, 3),
        // 1 + ceil(510 / 100) + ceil(250 / 50)
        (Service::RequestReply, 6, 5),
        (Service::Purchases, 0, 0),
    ] {
        let users = u64::from(style != Service::Purchases);
        let costs = [
            cost(style, "users"),
            cost(style, "orders"),
            cost(style, "products"),
        ];
        assert_eq!(costs, [users, orders, products], "{}", style.name());
    }

    let before = after;
    same_answer(&world, &bob.id()).await;
    let after = asked(&world).await;
    for style in [Service::Composition, Service::RequestReply] {
        let cost = |source| after[&style].get(source) - before[&style].get(source);
        let costs = [cost("users"), cost("orders"), cost("products")];
        assert_eq!(costs, [1, 1, 0], "{}, who ordered nothing", style.name());
    }
    world.finish().await;
}

fn position(reply: &e2e::Reply) -> u64 {
    let positions: Positions = reply.position().parse().unwrap();
    positions.get("products")
}

/// How many questions each style has asked each source so far.
async fn asked(world: &World) -> BTreeMap<Service, Positions> {
    let mut asked = BTreeMap::new();
    for style in Service::STYLES {
        let text = world.admin(style).get("/metrics").await.text;
        let counted = text.lines().filter_map(|line| {
            let line = line.strip_prefix(r#"purchases_requests_total{source=""#)?;
            let (source, count) = line.split_once(r#""} "#)?;
            Some((source.to_owned(), count.parse().ok()?))
        });
        asked.insert(style, Positions(counted.collect()));
    }
    asked
}
