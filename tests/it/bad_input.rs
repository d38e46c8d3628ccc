//! Bad input gets the right status and a text that says what to do. Nothing is written or
//! published.

use e2e::client::{Reply, send};
use e2e::faults::metric;
use e2e::{Client, Service, World, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// Bodies that no service accepts: name, content type, body, status.
fn no_good_anywhere() -> Vec<(&'static str, Option<&'static str>, Vec<u8>, u16)> {
    let json = Some("application/json");
    vec![
        ("malformed JSON", json, b"{\"".to_vec(), 400),
        ("not even text", json, vec![0xff, 0xfe, 0x00], 400),
        ("an empty body", json, vec![], 400),
        ("not an object", json, b"[1]".to_vec(), 422),
        ("an unknown field", json, b"{\"surprise\":1}".to_vec(), 422),
        ("no content type", None, b"{}".to_vec(), 415),
        (
            "another content type",
            Some("text/plain"),
            b"{}".to_vec(),
            415,
        ),
        (
            "a form",
            Some("application/x-www-form-urlencoded"),
            b"a=1".to_vec(),
            415,
        ),
        ("a body too large", json, vec![b' '; 300 * 1024], 413),
    ]
}

/// Checks an error answer; returns its detail.
fn problem(what: &str, reply: &Reply, status: u16) -> String {
    assert_eq!(reply.status.as_u16(), status, "{what}: {}", reply.text);
    assert_eq!(reply.content_type, "application/problem+json", "{what}");
    assert_eq!(reply.json["status"], status, "{what}: {}", reply.text);
    for field in ["type", "title", "detail"] {
        let text = reply.json[field].as_str().unwrap_or_default();
        assert!(text.len() > 3, "{what} has no {field}: {}", reply.text);
    }
    reply.json["detail"].as_str().unwrap_or_default().to_owned()
}

async fn post_bytes(
    client: &Client,
    path: &str,
    content_type: Option<&str>,
    body: Vec<u8>,
) -> Reply {
    let mut request = client.request(Method::POST, path).body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    send(request).await
}

/// Asserts that nothing was written or published since `before`, and finishes the world.
async fn assert_nothing_happened(world: World, before: &headwater::Positions) {
    assert_eq!(world.heads().await, *before, "something was written");
    world.caught_up().await;
    for source in Service::SOURCES {
        let published = world
            .stream(source)
            .await
            .get_info()
            .await
            .unwrap()
            .state
            .last_sequence;
        assert_eq!(
            published,
            before.get(source.name()),
            "{source:?} published something"
        );
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_good_are_refused_by_every_service() {
    let world = World::on_host().start().await;
    for (service, path) in [
        (Service::Users, "/users"),
        (Service::Products, "/products"),
        (Service::Orders, "/orders"),
    ] {
        let client = world.client(service);
        for (what, content_type, body, status) in no_good_anywhere() {
            let reply = post_bytes(&client, path, content_type, body).await;
            problem(&format!("{what} to {path}"), &reply, status);
        }
    }
    assert_nothing_happened(world, &"users:0,products:0,orders:0".parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_users_are_refused() {
    let world = World::on_host().start().await;
    let users = world.client(Service::Users);
    let right = json!({"name": "Ada", "email": "ada@example.com"});
    for (field, value) in [
        ("name", json!("")),
        ("name", json!("   ")),
        ("name", json!("x".repeat(201))),
        ("name", json!(7)),
        ("name", Value::Null),
        ("email", json!("")),
        ("email", json!("ada")),
        ("email", json!("ada @example.com")),
        ("email", json!("ada\u{202e}@example.com")),
        ("name", json!("Ada\nByron")),
        ("name", json!("Ada \u{202e}noryB")),
        ("name", json!("\u{3164}")),
        ("name", json!("\u{200b}")),
        ("email", json!(format!("{}@example.com", "x".repeat(250)))),
        ("password", json!("short")),
        ("password", json!("x".repeat(129))),
        ("id", json!("42")),
        ("id", json!(42)),
    ] {
        let mut body = right.clone();
        body[field] = value;
        let detail = problem(&body.to_string(), &users.post("/users", &body).await, 422);
        assert!(
            detail.contains(field),
            "{body}: the answer does not name the field: {detail}"
        );
    }
    problem(
        "no name",
        &users.post("/users", &json!({"email": "a@b"})).await,
        422,
    );
    problem("no UUID", &users.get("/users/42").await, 400);
    let nobody = format!("/users/{}", uuid::Uuid::nil());
    problem("an unknown user", &users.get(&nobody).await, 404);
    problem(
        "erase an unknown user",
        &send(users.request(Method::DELETE, &nobody)).await,
        404,
    );

    let mut login = right.clone();
    login["password"] = json!("correct horse");
    users.create("/users", &login).await;
    for same in ["ADA@example.com", "ａｄａ@Example．com"] {
        let login = json!({"name": "Bob", "email": same, "password": "12345678"});
        problem(same, &users.post("/users", &login).await, 409);
    }
    // Users without a password may share an address.
    users.create("/users", &right).await;
    assert_nothing_happened(world, &"users:2,products:0,orders:0".parse().unwrap()).await;
}

const HASHES: &str = "users_password_hashes_total";

/// What an attacker observes of a registration: the answer and its cost in hashes.
async fn observed(world: &World, key: Option<&str>, body: &Value) -> (Reply, String) {
    let (users, admin) = (world.client(Service::Users), world.admin(Service::Users));
    let before = metric(&admin, HASHES).await;
    let reply = match key {
        Some(key) => with_key(&users, "/users", key, body).await,
        None => users.post("/users", body).await,
    };
    let hashes = metric(&admin, HASHES).await - before;
    (reply, format!("{hashes} hashes"))
}

/// Neither the answer nor its cost depends on whether a password was guessed, because no stored
/// hash is compared.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_says_nothing_about_somebodys_password() {
    let mut world = World::on_host().empty();
    world.run(Service::Users).await;
    let users = world.client(Service::Users);
    let ada = json!({
        "id": uuid::Uuid::now_v7(), "name": "Ada", "email": "ada@example.com",
        "password": "correct horse",
    });
    let without = |field: &str| {
        let mut body = ada.clone();
        body.as_object_mut().unwrap().remove(field);
        body
    };
    let mut other_name = ada.clone();
    other_name["name"] = json!("Eve");
    let (first, cost) = observed(&world, Some("first"), &ada).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(cost, "1 hashes");

    for (what, key, body, status) in [
        ("the key", Some("first"), ada.clone(), 201),
        ("the key for another name", Some("first"), other_name, 422),
        ("the id", None, ada.clone(), 409),
        ("the id under another key", Some("second"), ada.clone(), 409),
        ("the address", None, without("id"), 409),
        ("the address under a key", Some("third"), without("id"), 409),
    ] {
        let mut wrong = body.clone();
        wrong["password"] = json!("battery staple");
        let right = observed(&world, key, &body).await;
        let wrong = observed(&world, key, &wrong).await;
        assert_eq!(right.0.status, status, "{what}: {}", right.0.text);
        assert_eq!(right.1, "0 hashes", "{what}");
        let seen =
            |(reply, cost): (Reply, String)| (reply.status, reply.position, reply.text, cost);
        assert_eq!(seen(right), seen(wrong), "{what}");
    }
    problem(
        "no password",
        &users.post("/users", &without("password")).await,
        409,
    );
    world.stop(Service::Users).await;
    world.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_the_database_answers_with_503_is_hashed_once() {
    let mut world = World::on_host().empty();
    world.run(Service::Users).await;
    let users = world.client(Service::Users);
    let ada = json!({"name": "Ada", "email": "ada@example.com", "password": "correct horse"});
    let (path, aside) = (
        world.database(Service::Users),
        world.folder().join("aside.db"),
    );
    std::fs::rename(&path, &aside).unwrap();
    for _ in 0..3 {
        let refused = with_key(&users, "/users", "ada", &ada).await;
        problem("the file is away", &refused, 503);
    }
    std::fs::rename(&aside, &path).unwrap();
    let registered = eventually("the registration", || async {
        let reply = with_key(&users, "/users", "ada", &ada).await;
        if reply.status == 201 {
            Ok(reply)
        } else {
            Err(reply.text)
        }
    });
    assert_eq!(registered.await.position(), "users:1");
    assert!((metric(&world.admin(Service::Users), HASHES).await - 1.0).abs() < 0.1);
    world.stop(Service::Users).await;
    world.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_products_and_images_are_refused() {
    let world = World::on_host().start().await;
    let products = world.client(Service::Products);
    let right = json!({"title": "Mug", "image": "https://example.com/mug.png"});
    let mug = products.create("/products", &right).await;
    let path = format!("/products/{}", mug.id());
    for (field, value) in [
        ("title", json!("")),
        ("title", json!("x".repeat(201))),
        ("title", json!(["x"])),
        ("title", json!("Mug\u{0}")),
        ("title", json!("Mug \u{2066}!")),
        ("title", json!("\u{200b}\u{2800}")),
        ("image", json!("https://ada:secret@example.com/mug.png")),
        ("image", json!("http://127.0.0.1:8222/varz")),
        ("image", json!("http://0x7f.1/")),
        ("image", json!("http://[::ffff:169.254.169.254]/")),
        ("image", json!("http://localhost./")),
        ("image", json!("")),
        ("image", json!("mug.png")),
        ("image", json!("/etc/passwd")),
        ("image", json!("ftp://example.com/mug.png")),
        ("image", json!("javascript:alert(1)")),
        ("image", json!(format!("/images/{}", "0".repeat(64)))),
        ("id", json!("not-a-uuid")),
    ] {
        let mut body = right.clone();
        body[field] = value.clone();
        let detail = problem(
            &body.to_string(),
            &products.post("/products", &body).await,
            422,
        );
        assert!(
            detail.contains(field),
            "{body}: the answer does not name the field: {detail}"
        );
        let change = json!({ field: value });
        let reply = send(products.request(Method::PATCH, &path).json(&change)).await;
        problem(&change.to_string(), &reply, 422);
    }
    for nothing in [
        json!({}),
        json!({"title": null}),
        json!({"title": "x", "image": null}),
    ] {
        let reply = send(products.request(Method::PATCH, &path).json(&nothing)).await;
        problem(&format!("a change of nothing: {nothing}"), &reply, 422);
    }
    for wrong in [
        "/products/7",
        "/products?limit=0",
        "/products?limit=501",
        "/products?limit=x",
        "/products?start_after=7",
        "/products?ids=7",
    ] {
        problem(wrong, &products.get(wrong).await, 400);
    }
    let unknown = format!("/products/{}", uuid::Uuid::nil());
    problem("unknown", &products.get(&unknown).await, 404);
    let reply = send(
        products
            .request(Method::PATCH, &unknown)
            .json(&json!({"title": "x"})),
    )
    .await;
    problem("change the unknown", &reply, 404);

    for (what, content_type, body, status) in [
        ("no type", None, b"<svg/>".to_vec(), 415),
        ("a page", Some("text/html"), b"<html>".to_vec(), 415),
        (
            "a page as SVG",
            Some("IMAGE/SVG+xml"),
            b"<html><svg/></html>".to_vec(),
            422,
        ),
        ("a lie", Some("image/png"), b"<svg/>".to_vec(), 422),
        ("nothing", Some("image/png"), vec![], 422),
        (
            "too large",
            Some("image/png"),
            vec![0; 2 * 1024 * 1024 + 1],
            413,
        ),
    ] {
        let reply = post_bytes(&products, "/images", content_type, body).await;
        problem(&format!("an image: {what}"), &reply, status);
    }
    problem("no image", &products.get("/images/mug.png").await, 404);
    assert_nothing_happened(world, &"users:0,products:1,orders:0".parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_orders_are_refused() {
    let world = World::on_host().start().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    let orders = world.client(Service::Orders);
    world.order(&ada, &[&mug]).await;
    let unknown = uuid::Uuid::now_v7().to_string();
    let order = |user: &str, products: Value| json!({"user_id": user, "product_ids": products});
    for (what, body) in [
        ("an empty order", order(&ada.id(), json!([]))),
        (
            "too many lines",
            order(&ada.id(), json!(vec![mug.id(); 1001])),
        ),
        ("an unknown user", order(&unknown, json!([mug.id()]))),
        (
            "an unknown product",
            order(&ada.id(), json!([mug.id(), unknown])),
        ),
        (
            "a user id that is not a UUID",
            order("7", json!([mug.id()])),
        ),
        (
            "a product id that is not a UUID",
            order(&ada.id(), json!([7])),
        ),
        (
            "products that are not a list",
            order(&ada.id(), json!(mug.id())),
        ),
        ("no products", json!({"user_id": ada.id()})),
        (
            "a field too many",
            json!({"user_id": ada.id(), "product_ids": [mug.id()], "price": 0}),
        ),
    ] {
        problem(what, &orders.post("/orders", &body).await, 422);
    }
    let lines = order(&ada.id(), json!(vec![mug.id(); 1000]));
    assert_eq!(
        orders.post("/orders", &lines).await.status,
        201,
        "a thousand lines are not too many"
    );
    for wrong in ["/orders", "/orders?user_id=7", "/orders/7"] {
        problem(wrong, &orders.get(wrong).await, 400);
    }
    problem(
        "unknown",
        &orders.get(&format!("/orders/{unknown}")).await,
        404,
    );
    let one = order(&ada.id(), json!([mug.id()]));
    problem(
        "no position",
        &orders.post("/orders?after=users", &one).await,
        400,
    );
    problem(
        "no source",
        &orders.post("/orders?after=invoices:1", &one).await,
        400,
    );
    assert_nothing_happened(world, &"users:1,products:1,orders:2".parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_refused_by_every_service() {
    let world = World::on_host().start().await;
    for (service, known) in [
        (Service::Users, "/users"),
        (Service::Products, "/products"),
        (Service::Orders, "/orders"),
        (Service::Purchases, "/"),
    ] {
        let client = world.client(service);
        problem("a path", &client.get("/no/such/path").await, 404);
        let reply = send(client.request(Method::PUT, known)).await;
        problem("a method", &reply, 405);
        let reply = client.request(Method::PUT, known).send().await.unwrap();
        assert!(
            reply.headers().contains_key("allow"),
            "{known} does not say what it takes"
        );
    }
    let purchases = world.client(Service::Purchases);
    problem("no UUID", &purchases.get("/users/7/purchases").await, 400);
    problem(
        "an unknown user",
        &purchases
            .get(&format!("/users/{}/purchases", uuid::Uuid::nil()))
            .await,
        404,
    );
    assert_nothing_happened(world, &"users:0,products:0,orders:0".parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_query_parameters_are_refused_by_every_service() {
    let world = World::on_host().start().await.with_styles().await;
    let nobody = uuid::Uuid::nil();
    let purchases = [
        format!("/users/{nobody}/purchases?limit=2&after=users:0&surprise=1"),
        format!("/users/{nobody}?surprise=1"),
        "/?surprise=1".to_owned(),
        "/readyz?surprise".to_owned(),
    ];
    let others =
        |paths: &[&str]| -> Vec<String> { paths.iter().map(|&path| path.into()).collect() };
    let (user, product) = (format!("/users/{nobody}"), format!("/products/{nobody}"));
    let with = |path: &str| format!("{path}?surprise=1");
    let products = others(&["/products?limit=2&surprise=1", "/images/x?surprise=1"]);
    let orders = format!("/orders?user_id={nobody}&surprise=1");
    for (service, paths) in [
        (Service::Users, vec![with(&user), with("/livez")]),
        (Service::Products, [products, vec![with(&product)]].concat()),
        (Service::Orders, vec![orders]),
        (Service::Purchases, purchases.to_vec()),
        (Service::Composition, purchases.to_vec()),
        (Service::RequestReply, purchases.to_vec()),
    ] {
        for path in paths {
            let reply = world.client(service).get(&path).await;
            let detail = problem(&path, &reply, 400);
            assert!(detail.contains("`surprise`"), "{path}: {detail}");
        }
    }
    for (service, path) in [
        (Service::Users, "/users"),
        (Service::Products, "/products"),
        (Service::Orders, "/orders"),
    ] {
        let reply = world.client(service).post(&with(path), &json!({})).await;
        problem(path, &reply, 400);
    }
    assert_nothing_happened(world, &"users:0,products:0,orders:0".parse().unwrap()).await;
}

/// POSTs with an idempotency key.
async fn with_key(client: &Client, path: &str, key: &str, body: &Value) -> Reply {
    let request = client.request(Method::POST, path).json(body);
    send(request.header("idempotency-key", key)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_or_an_id_used_again_has_one_effect_and_another_body_is_refused() {
    let world = World::on_host().start().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    world.order(&ada, &[&mug]).await;
    let id = || uuid::Uuid::now_v7().to_string();
    let order = json!({"user_id": ada.id(), "product_ids": [mug.id()]});
    let two = json!({"user_id": ada.id(), "product_ids": [mug.id(), mug.id()]});
    let user = json!({"name": "Bob", "email": "bob@example.com"});
    let user2 = json!({"name": "Rob", "email": "bob@example.com"});
    let tent = json!({"title": "Tent", "image": "https://example.com/t.png"});
    let tent2 = json!({"title": "Tent 2", "image": "https://example.com/t.png"});
    for (service, path, body, other) in [
        (Service::Orders, "/orders", order, two),
        (Service::Users, "/users", user, user2),
        (Service::Products, "/products", tent, tent2),
    ] {
        let client = world.client(service);
        let first = with_key(&client, path, "key-1", &body).await;
        assert_eq!(first.status, 201, "{}", first.text);
        let again = with_key(&client, path, "key-1", &body).await;
        assert_eq!((again.status, &again.text), (first.status, &first.text));
        assert_eq!(again.position(), first.position());
        problem(
            "the key for something else",
            &with_key(&client, path, "key-1", &other).await,
            422,
        );
        for wrong in [" ".to_owned(), "k".repeat(256)] {
            problem(
                "a wrong key",
                &with_key(&client, path, &wrong, &body).await,
                400,
            );
        }

        let mut with_id = body.clone();
        with_id["id"] = json!(id());
        let first = client.create(path, &with_id).await;
        assert_eq!(first.json["id"], with_id["id"]);
        let again = client.create(path, &with_id).await;
        assert_eq!(
            (&again.text, again.position()),
            (&first.text, first.position())
        );
        let mut other_with_id = other.clone();
        other_with_id["id"] = with_id["id"].clone();
        problem(
            "the id for something else",
            &client.post(path, &other_with_id).await,
            409,
        );
    }
    assert_nothing_happened(world, &"users:3,products:3,orders:3".parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_sent_many_times_at_once_has_one_effect() {
    let world = World::on_host().start().await;
    let users = world.client(Service::Users);
    let body = json!({"name": "Ada", "email": "ada@example.com", "password": "correct horse"});
    let replies = (0..12).map(|_| with_key(&users, "/users", "once", &body));
    for reply in futures_util::future::join_all(replies).await {
        assert_eq!(
            (reply.status.as_u16(), reply.position()),
            (201, "users:1"),
            "{}",
            reply.text
        );
    }
    assert_nothing_happened(world, &"users:1,products:0,orders:0".parse().unwrap()).await;
}
