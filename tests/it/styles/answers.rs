//! The same answers from all styles, on the same data.

use e2e::client::send;
use e2e::data::DataSet;
use e2e::world::titles;
use e2e::{Service, World};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use shop_import::{Kind, mapped};

use super::{after, products, same_answer};

#[tokio::test(flavor = "multi_thread")]
async fn every_style_shows_each_product_once_as_first_ordered() {
    let world = World::start_styles().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    let first = world.order(&ada, &[&mug]).await;
    let second = world.order(&ada, &[&tent, &mug, &mug]).await;
    world.order(&bob, &[&tent]).await;

    let reply = same_answer(&world, &ada.id()).await;
    let purchases = reply.json["purchases"].as_array().unwrap();
    assert_eq!(titles(&reply.json), ["Mug", "Tent"]);
    assert_eq!(purchases[0]["product_id"], mug.id());
    assert_eq!(purchases[0]["first_ordered_at"], first.json["placed_at"]);
    assert_eq!(purchases[1]["image"], "https://example.com/Tent.png");
    assert_eq!(purchases[1]["first_ordered_at"], second.json["placed_at"]);
    assert_eq!(purchases[0]["last_ordered_at"], second.json["placed_at"]);
    assert_eq!(
        (&purchases[0]["times"], &purchases[1]["times"]),
        (&json!(2), &json!(1))
    );
    for style in Service::STYLES {
        let reply = world.purchases_by(style, &ada.id(), "").await;
        let as_of = json!({"orders": 3, "products": 2, "users": 2});
        assert_eq!(reply.json["as_of"], as_of, "{}", style.name());
        assert_eq!(reply.position(), "orders:3,products:2,users:2");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_knows_who_is_unknown_erased_or_has_ordered_nothing() {
    let world = World::start_styles().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    assert_eq!(same_answer(&world, &ada.id()).await.status, 200);

    let nothing = same_answer(&world, &bob.id()).await;
    assert_eq!(
        (nothing.status.as_u16(), &nothing.json["purchases"]),
        (200, &json!([]))
    );
    let unknown = same_answer(&world, &uuid::Uuid::nil().to_string()).await;
    assert_eq!(unknown.status, 404);
    let users = world.client(Service::Users);
    let erased = send(users.request(Method::DELETE, &format!("/users/{}", ada.id()))).await;
    for style in Service::STYLES {
        let gone = world
            .purchases_by(style, &ada.id(), erased.position())
            .await;
        assert_eq!(gone.status, 404, "{}: {}", style.name(), gone.text);
    }
    same_answer(&world, &ada.id()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_shows_a_renamed_product_by_its_new_name() {
    let world = World::start_styles().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    same_answer(&world, &ada.id()).await;
    let products = world.client(Service::Products);
    let rename = products.request(Method::PATCH, &format!("/products/{}", mug.id()));
    let renamed = send(rename.json(&json!({"title": "Cup"}))).await;
    for style in Service::STYLES {
        let reply = world
            .purchases_by(style, &ada.id(), renamed.position())
            .await;
        assert_eq!(titles(&reply.json), ["Cup"], "{}", style.name());
    }
    same_answer(&world, &ada.id()).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_shows_a_made_up_shop_as_a_plain_fold_has_it() {
    let world = World::start_styles().await;
    let shop = DataSet::made_up(4711, 40, 160, 300);
    shop.import(&world).await;
    for style in Service::STYLES {
        shop.assert_shown_by(style, &world).await;
    }
    for foreign in shop.expected().keys() {
        let user = mapped(Kind::Users, foreign).to_string();
        same_answer(&world, &user).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_shows_a_write_to_who_sends_its_position_also_under_load() {
    let world = World::start_styles().await;
    let things = products(&world, 3).await;
    let (world_ref, things) = (&world, &things);
    let shopper = |number: usize| async move {
        let user = world_ref.user(&format!("u{number}")).await;
        let mut expected = Vec::new();
        for thing in things {
            let order = world_ref.order(&user, &[thing]).await;
            expected.push(thing.json["title"].as_str().unwrap().to_owned());
            let after = after(&[&user, thing, &order]);
            for style in Service::STYLES {
                let seen = world_ref.purchases_by(style, &user.id(), &after).await;
                let mut expected = expected.clone();
                expected.sort();
                assert_eq!(
                    titles(&seen.json),
                    expected,
                    "{}: {}",
                    style.name(),
                    seen.text
                );
                let at: headwater::Positions = seen.position().parse().unwrap();
                assert!(at.reach(&after.parse().unwrap()), "{}: {at}", style.name());
            }
        }
    };
    join_all((0..12).map(shopper)).await;
    world.finish().await;
}
