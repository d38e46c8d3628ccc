//! One HTTP API for all styles.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use e2e::client::send;
use e2e::{Service, World};
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{ASKING, Ada, assert_names, run_again};

#[tokio::test(flavor = "multi_thread")]
async fn every_style_has_the_page_and_the_same_problems_and_documentation() {
    let world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    let mut documented = BTreeSet::new();
    for style in Service::STYLES {
        let (client, name) = (world.client(style), style.name());
        let page = client.get(&format!("/users/{}", ada.id)).await;
        assert_eq!(page.content_type, "text/html; charset=utf-8", "{name}");
        for shown in [
            "2 products",
            "Mug",
            "https://example.com/Tent.png",
            "orders:2",
        ] {
            assert!(
                page.text.contains(shown),
                "{name}: no {shown} in {}",
                page.text
            );
        }
        let found = client.get(&format!("/?user=%20{}%20", ada.id)).await;
        assert!(found.text.contains("2 products"), "{name}: {}", found.text);
        let wrong = client.get("/?user=ada").await;
        assert_eq!(wrong.status, 400, "{name}");
        assert!(
            wrong.text.contains("“ada” is not a user id"),
            "{name}: {}",
            wrong.text
        );
        let unknown = client.get("/users/nobody").await;
        assert_eq!(unknown.status, 404, "{name}");
        assert!(unknown.text.contains("No such user"), "{name}");

        assert_eq!(client.get("/livez").await.text, "ok\n", "{name}");
        assert_eq!(client.get("/readyz").await.text, "ready\n", "{name}");
        let no_id = client.get("/users/ada/purchases").await;
        let no_path = client.get("/purchases").await;
        let no_method = send(client.request(Method::DELETE, &ada.path)).await;
        let problems = [(no_id, 400), (no_path, 404), (no_method, 405)];
        for (problem, status) in problems {
            assert_eq!(problem.status, status, "{name}: {}", problem.text);
            assert_eq!(problem.content_type, "application/problem+json", "{name}");
        }
        let paths = client.get("/openapi.json").await.json["paths"].to_string();
        assert!(paths.contains("/users/{id}/purchases"), "{name}: {paths}");
        documented.insert(paths);
    }
    assert_eq!(documented.len(), 1, "the same in all styles");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_copy_lists_users_on_its_start_page() {
    let world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    let shown = |style| {
        let client = world.client(style);
        async move { client.get("/").await.text }
    };
    let replica = shown(Service::Purchases).await;
    assert!(replica.contains(&ada.id) && replica.contains("makes its pages from that copy"));
    for (style, how) in ASKING.into_iter().zip(["over HTTP", "over the bus"]) {
        let page = shown(style).await;
        assert!(
            page.contains("<form") && page.contains(how),
            "{}: {page}",
            style.name()
        );
        assert!(!page.contains(&ada.id), "{}: {page}", style.name());
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_style_says_what_is_wrong_with_after_and_waits_for_what_does_not_come() {
    let mut world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    for style in ASKING {
        run_again(&mut world, style, &["--answer-timeout", "1s"]).await;
    }
    run_again(
        &mut world,
        Service::Purchases,
        &["--consistency-timeout", "1s"],
    )
    .await;
    let bob = world.user("bob").await;
    world.caught_up().await;
    let mut refusals = BTreeSet::new();
    for style in Service::STYLES {
        let name = style.name();
        for wrong in ["orders", "orders:x", "invoices:1"] {
            let reply = world.purchases_by(style, &ada.id, wrong).await;
            assert_eq!(reply.status, 400, "{name}, {wrong}: {}", reply.text);
            refusals.insert(reply.text);
        }
        for (user, never) in [
            (&ada.id, "orders:1000"),
            (&ada.id, "users:1000"),
            (&bob.id(), "products:1000"),
        ] {
            let started = Instant::now();
            let path = format!("/users/{user}/purchases?after={never}");
            let request = world.client(style).request(Method::GET, &path);
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 503, "{name}, {never}");
            assert_eq!(response.headers()["retry-after"], "1", "{name}, {never}");
            let problem: serde_json::Value = response.json().await.unwrap();
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains("not yet") && detail.contains(never),
                "{name}: {detail}"
            );
            let waited = started.elapsed();
            assert!(
                waited >= Duration::from_millis(900),
                "{name} waited {waited:?}"
            );
        }
        let nothing = world.purchases_by(style, &bob.id(), "products:2").await;
        assert_eq!(nothing.status, 200, "{name}: {}", nothing.text);
    }
    assert_eq!(refusals.len(), 3, "the same in all styles: {refusals:#?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_database_is_an_ordinary_one_to_operators() {
    let world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    for style in ASKING {
        let status = world.ask(style, "status", &json!({})).await.unwrap();
        assert_eq!(status["service"], style.name());
        assert_eq!(status["parts"]["orders"]["state"], "ok", "{status}");
        let refused = world.ask(style, "rebuild", &json!({})).await;
        assert!(
            refused.unwrap_err().contains("no responders"),
            "{}",
            style.name()
        );
        assert!(!world.database(style).exists(), "{}", style.name());
    }
    let files = std::fs::read_dir(world.folder()).unwrap();
    let databases = files.filter(|file| {
        let name = file.as_ref().unwrap().file_name();
        name.to_string_lossy().ends_with(".db")
    });
    assert_eq!(
        databases.count(),
        4,
        "users, products, orders and the replica"
    );
    let verified = e2e::operator::verify(&world).await;
    assert_eq!(verified.exit(), cli::Exit::Done, "{verified}");
    assert_eq!(ada.asks(&world, Service::RequestReply).await.status, 200);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_answers_nonsense_or_500_is_named() {
    let mut world = World::on_host().start().await.with_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let impostor = Router::new()
        .route("/orders", get(|| async { "{}" }))
        .fallback(|| async { axum::http::StatusCode::INTERNAL_SERVER_ERROR });
    let config = headwater::http::Config::default();
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    tasks.spawn(headwater::http::serve(listener, impostor, config, stop));
    for (source, why) in [
        (Service::Orders, "orders gave an invalid answer"),
        (Service::Products, "products answered 500"),
        (Service::Users, "users answered 500"),
    ] {
        world.stop(Service::Composition).await;
        world
            .run_with(Service::Composition, |command| {
                let flag = format!("--{}-url", source.name());
                command.args([flag, format!("http://{address}")]);
            })
            .await;
        let reply = ada.asks(&world, Service::Composition).await;
        assert_names(Service::Composition, source, &reply);
        assert!(reply.text.contains(why), "{}", reply.text);
    }
    world.stop(Service::Composition).await;
    world.run(Service::Composition).await;
    ada.is_answered(&world, Service::Composition).await;
    world.finish().await;
}
