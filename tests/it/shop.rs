//! The shop's pages: users by name, search, products, and orders placed with the form.

use e2e::client::send;
use e2e::world::{after, titles};
use e2e::{Client, Reply, Service, World, eventually};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

/// Gets a page until it has the text.
async fn page_with(client: &Client, path: &str, text: &str) -> String {
    eventually("the page to have a text", || async {
        let page = client.get(path).await;
        if page.status == 200 && page.text.contains(text) {
            Ok(page.text)
        } else {
            Err(format!("no `{text}` in {} {}", page.status, page.text))
        }
    })
    .await
}

/// Places an order with the form. The client follows to the page of the user.
async fn order(client: &Client, user: &str, products: &[&Reply], key: Uuid) -> Reply {
    let products = products.iter().map(|it| format!("&product={}", it.id()));
    let form = format!("user={user}&key={key}{}", products.collect::<String>());
    send(form_of(client, form)).await
}

fn form_of(client: &Client, form: String) -> reqwest::RequestBuilder {
    let request = client.request(Method::POST, "/order");
    let kind = "application/x-www-form-urlencoded";
    request.header("content-type", kind).body(form)
}

/// The key under which a form sends its order.
fn key_of(form: &str) -> &str {
    let (_, key) = form.split_once("name=\"key\" value=\"").unwrap();
    key.split_once('"').unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_shown_and_found_by_name_until_they_are_erased() {
    let world = World::start().await;
    let ada = json!({"name": "Zoë Ångström", "email": "zoe@example.com"});
    let ada = world.client(Service::Users).create("/users", &ada).await;
    let bob = world.user("bob").await;
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    world.order(&ada, &[&mug]).await;
    world.order(&bob, &[&tent]).await;
    world.order(&ada, &[&tent, &mug]).await;
    world.caught_up().await;
    let pages = world.client(Service::Purchases);

    let home = page_with(&pages, "/", "Zoë Ångström").await;
    let place = |id: String| home.find(&id).unwrap();
    assert!(place(ada.id()) < place(bob.id()), "the newest order first");
    let page = page_with(&pages, &format!("/users/{}", ada.id()), "Zoë Ångström").await;
    assert!(page.contains("ordered 2 times"), "{page}");
    for text in ["angstrom", "zoe%20ang", "%C3%85NGSTR%C3%96M"] {
        let found = page_with(&pages, &format!("/?q={text}"), "Users with this name").await;
        assert!(
            found.contains(&ada.id()) && !found.contains(&bob.id()),
            "{found}"
        );
    }
    // The order form finds users too, and keeps what is chosen.
    let form = format!("/order?user=angstrom&product={}", mug.id());
    let form = page_with(&pages, &form, "Zoë Ångström").await;
    let chosen = format!("/order?user={}&#38;product={}", ada.id(), mug.id());
    assert!(form.contains(&chosen), "{form}");
    let nobody = pages.get("/order?user=nobody").await.text;
    assert!(nobody.contains("Nobody is called so."), "{nobody}");
    let found = page_with(&pages, "/?q=mug", "Users who ordered such a product").await;
    assert!(
        found.contains(&format!("/products/{}", mug.id())),
        "{found}"
    );
    assert!(
        found.contains(&ada.id()) && !found.contains(&bob.id()),
        "{found}"
    );
    let product = page_with(&pages, &format!("/products/{}", tent.id()), "Tent").await;
    assert!(product.contains("<dd>2</dd>"), "{product}");

    let erase = world.client(Service::Users);
    let erased = send(erase.request(Method::DELETE, &format!("/users/{}", ada.id()))).await;
    assert_eq!(erased.status, 204);
    let search = pages.get("/?q=angstrom").await.text;
    assert!(
        !search.contains("Ångström") && !search.contains(&ada.id()),
        "{search}"
    );
    let home = pages.get("/").await.text;
    assert!(!home.contains("Ångström"), "{home}");
    world.purchases(&bob.id(), erased.position()).await;
    let home = page_with(&pages, "/", "bob").await;
    assert!(!home.contains(&ada.id()), "{home}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_come_without_names_while_users_is_away() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    world.stop(Service::Users).await;
    let pages = world.client(Service::Purchases);
    let id = ada.id();
    let short = format!("…{}", &id[id.len() - 8..]);
    for path in ["/".to_owned(), format!("/users/{id}")] {
        let page = page_with(&pages, &path, "Names are missing").await;
        assert!(page.contains(&short), "{path}: {page}");
    }
    let found = page_with(&pages, "/?q=mug", "Names cannot be searched").await;
    assert!(found.contains("Mug") && found.contains(&short), "{found}");
    assert_eq!(titles(&world.purchases(&id, "").await.json), ["Mug"]);
    world.run(Service::Users).await;
    page_with(&pages, "/?q=ada", "Users with this name").await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_of_the_form_is_placed_once_and_shown() {
    let world = World::on_host().start().await.with_styles().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.purchases(&ada.id(), &after(&[&ada, &mug])).await;
    world.order(&ada, &[&mug]).await;
    for style in Service::STYLES {
        let (pages, name) = (world.client(style), style.name());
        let form = pages
            .get(&format!("/order?user={}&product={}", ada.id(), mug.id()))
            .await;
        assert!(form.text.contains("checked"), "{name}: {}", form.text);
        let key = Uuid::now_v7();
        let tent = world.product(&format!("Tent {name}")).await;
        // `orders` may not know the product yet; the form comes back then.
        let placed = eventually("the order to be placed", || async {
            let placed = order(&pages, &ada.id(), &[&tent], key).await;
            match placed.status.as_u16() {
                200 => Ok(placed),
                status => Err(format!("{status} {}", placed.text)),
            }
        })
        .await;
        let is_measured = placed.text.contains("placed → seen in");
        assert_eq!(is_measured, style == Service::Purchases, "{name}");
        assert!(
            placed.text.contains(&format!("Tent {name}")),
            "{}",
            placed.text
        );
        let again = order(&pages, &ada.id(), &[&tent], key).await;
        assert_eq!(again.status, 200, "{name}: {}", again.text);
    }
    let orders = world.client(Service::Orders);
    let orders = orders.get(&format!("/orders?user_id={}", ada.id())).await;
    assert_eq!(
        orders.json["items"].as_array().unwrap().len(),
        4,
        "{}",
        orders.text
    );
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_cannot_be_sent_comes_back_as_it_was_filled_in() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug<script>alert(1)</script>").await;
    let tent = world.product("Tent").await;
    world.order(&ada, &[&mug, &tent]).await;
    world.caught_up().await;
    let pages = world.client(Service::Purchases);
    let key = Uuid::now_v7();
    let form = format!("user={}&product={}&key={key}", ada.id(), mug.id());

    let forged = form_of(&pages, form.clone()).header("sec-fetch-site", "cross-site");
    let forged = send(forged).await;
    assert_eq!(forged.status, 403, "{}", forged.text);
    let forged = form_of(&pages, form.clone()).header("origin", "http://evil.example");
    assert_eq!(send(forged).await.status, 403);
    let json = pages.post("/order", &json!({"user": ada.id()})).await;
    assert_eq!(json.status, 415, "{}", json.text);

    for (form, why) in [
        (format!("user=ada&product={}", mug.id()), "Who orders?"),
        (format!("user={}", ada.id()), "Choose at least one product"),
        (
            format!("user={}&product={}", Uuid::nil(), mug.id()),
            "there is no user",
        ),
    ] {
        let refused = Uuid::now_v7().to_string();
        let form = format!("{form}&key={refused}");
        let refusal = send(form_of(&pages, form)).await;
        assert_eq!(refusal.status, 422, "{}", refusal.text);
        assert!(refusal.text.contains(why), "{why}: {}", refusal.text);
        assert!(!refusal.text.contains("<script"), "{}", refusal.text);
        // The corrected order is another one, under another key.
        let key = key_of(&refusal.text);
        assert_ne!(key, refused, "{why}");
        let corrected = order(&pages, &ada.id(), &[&mug], key.parse().unwrap()).await;
        assert_eq!(corrected.status, 200, "{why}: {}", corrected.text);
    }

    // A client goes back to a form that has placed an order, and changes it.
    let used = Uuid::now_v7();
    let placed = order(&pages, &ada.id(), &[&mug], used).await;
    assert_eq!(placed.status, 200, "{}", placed.text);
    let changed = order(&pages, &ada.id(), &[&tent], used).await;
    assert_eq!(changed.status, 422, "{}", changed.text);
    let why = "has placed another order already";
    assert!(changed.text.contains(why), "{}", changed.text);
    assert_ne!(key_of(&changed.text), used.to_string());

    world.stop(Service::Orders).await;
    let away = send(form_of(&pages, form)).await;
    assert_eq!(away.status, 503, "{}", away.text);
    assert_eq!(away.content_type, "text/html; charset=utf-8");
    assert!(away.retry_after.is_some());
    let kept = [
        ada.id(),
        mug.id(),
        key.to_string(),
        "cannot be reached".to_owned(),
    ];
    for kept in kept {
        assert!(away.text.contains(&kept), "{kept}: {}", away.text);
    }
    assert!(away.text.contains("checked"), "{}", away.text);
    world.run(Service::Orders).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_searched_for_gets_a_clear_answer() {
    let world = World::start().await;
    world.product("Mug").await;
    world.caught_up().await;
    let pages = world.client(Service::Purchases);
    let long = "a".repeat(10_000);
    for (text, status, answer) in [
        ("", 200, "Users"),
        ("%20", 200, "Users"),
        ("-", 200, "type a letter or a digit"),
        ("%F0%9F%99%82", 200, "type a letter or a digit"),
        ("%00", 200, "Users"),
        (&*long, 400, "at most 200 characters"),
        ("%D7%A9%D7%9C%D7%95%D7%9D", 200, "Nothing has all the words"),
        ("mug%22%20OR%20%22x", 200, "Nothing has all the words"),
        ("title:mug%20NEAR(*)", 200, "Nothing has all the words"),
        ("MUG%00", 200, "/products/"),
    ] {
        for path in ["/", "/order"] {
            let page = pages.get(&format!("{path}?q={text}")).await;
            let expected = if path == "/" { status } else { 200 };
            assert_eq!(page.status, expected, "{path} {text}: {}", page.text);
            assert!(
                path != "/" || page.text.contains(answer),
                "{text}: {}",
                page.text
            );
        }
    }
    let wrong = pages.get("/products/mug").await;
    assert_eq!(wrong.status, 404);
    assert!(wrong.text.contains("No such product"));
    world.finish().await;
}
