//! Streams that follow what a user ordered.

use std::time::{Duration, Instant};

use e2e::client::send;
use e2e::events::{Event, Events};
use e2e::faults::metric;
use e2e::{Reply, Service, World, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// The shortest time between two reads of a stream, in the service.
const PAUSE: Duration = Duration::from_millis(200);

/// The stream of a user.
async fn follow(world: &World, user: &Reply, last: Option<&str>) -> Events {
    let path = format!("/users/{}/purchases", user.id());
    Events::open(&world.client(Service::Purchases), &path, last).await
}

async fn erase(world: &World, user: &Reply) {
    let path = format!("/users/{}", user.id());
    let request = world.client(Service::Users).request(Method::DELETE, &path);
    let erased = send(request).await;
    assert!(erased.status.is_success(), "{}", erased.text);
}

/// The products of the page, and the titles of those that have changed.
fn shown(event: &Event) -> (Vec<&str>, Vec<&str>) {
    assert_eq!(event.name, "purchases");
    assert!(event.id.contains("orders:"), "{}", event.id);
    let order = event.data["order"].as_array().unwrap().iter();
    let changed = event.data["purchases"].as_array().unwrap().iter();
    (
        order.map(|id| id.as_str().unwrap()).collect(),
        changed.map(|it| it["title"].as_str().unwrap()).collect(),
    )
}

/// The HTML of the card of `product` in an event.
fn card<'a>(event: &'a Event, product: &Reply) -> Option<&'a str> {
    event.data["html"][product.id()].as_str()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_brings_what_its_user_ordered_and_how_it_is_called_now() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    let mut events = follow(&world, &ada, None).await;
    let first = events.next().await.unwrap();
    assert_eq!(shown(&first).0, [mug.id()]);
    assert_eq!(shown(&first).1, ["Mug"]);
    assert!(card(&first, &mug).unwrap().contains(">Mug</a></h2>"));

    // Nothing of this is on the page.
    world.order(&bob, &[&tent]).await;
    world.rename(&tent, "Big tent").await;
    world.caught_up().await;
    world.order(&ada, &[&tent]).await;
    let second = events.next().await.unwrap();
    assert_eq!(shown(&second).0, [tent.id(), mug.id()]);
    assert_eq!(shown(&second).1, ["Big tent"]);
    assert_eq!(card(&second, &mug), None);
    assert!(
        second.data["html"]["count"].is_string(),
        "{:?}",
        second.data
    );

    world.rename(&mug, "Cup").await;
    let third = events.next().await.unwrap();
    assert_eq!(shown(&third).1, ["Cup"]);
    assert_eq!(third.data["html"]["count"], Value::Null);

    // A product that came while the stream was open is followed too.
    world.rename(&tent, "Small tent").await;
    assert_eq!(shown(&events.next().await.unwrap()).1, ["Small tent"]);
    drop(events);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reconnects_has_missed_nothing() {
    let mut world = World::start().await;
    let ada = world.user("ada").await;
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    let mut events = follow(&world, &ada, None).await;
    let last = events.next().await.unwrap().id;

    // The stream ends with the service, in order.
    world.stop(Service::Purchases).await;
    assert_eq!(events.next().await, None);
    world.order(&ada, &[&tent]).await;
    world.rename(&mug, "Cup").await;
    world.run(Service::Purchases).await;
    world.caught_up().await;
    let mut events = follow(&world, &ada, Some(&last)).await;
    let missed = events.next().await.unwrap();
    assert_eq!(shown(&missed).1, ["Tent", "Cup"]);

    // Who has seen everything gets only what comes: after a reconnect, and on a page just loaded.
    let mut events = follow(&world, &ada, Some(&missed.id)).await;
    world.rename(&tent, "Big tent").await;
    let seen = events.next().await.unwrap();
    assert_eq!(shown(&seen).1, ["Big tent"]);
    let path = format!("/users/{}/purchases?seen={}", ada.id(), seen.id);
    let mut events = Events::open(&world.client(Service::Purchases), &path, None).await;
    world.rename(&mug, "Mug").await;
    assert_eq!(shown(&events.next().await.unwrap()).1, ["Mug"]);
    drop(events);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_between_a_page_and_its_stream_is_reported() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    world.order(&ada, &[&mug]).await;
    world.order(&ada, &[&tent]).await;
    world.caught_up().await;
    let client = world.client(Service::Purchases);
    let user = format!("/users/{}", ada.id());
    let first = client.get(&format!("{user}?limit=1")).await.text;
    let (_, older) = first.split_once("rel=\"next\" href=\"").unwrap();
    let older = older.split_once('"').unwrap().0.replace("&#38;", "&");
    let later = client.get(&older).await.text;
    assert!(later.contains("Mug"), "{later}");
    let newest = format!("data-newest=\"{}\"", tent.id());
    assert!(later.contains(&newest) && !first.contains("data-newest"));

    let hat = world.product("Hat").await;
    world.order(&ada, &[&hat]).await;
    world.caught_up().await;
    for page in [first, later] {
        let mut events = Events::open(&client, &stream_of(&page), None).await;
        // The first of its events, and not only the next change.
        let missed = events.next().await.unwrap();
        assert_eq!(shown(&missed), (vec![&*hat.id()], vec!["Hat"]));
    }
    world.finish().await;
}

/// The address of the stream that a page follows, as its script makes it.
fn stream_of(page: &str) -> String {
    let value = |name: &str| {
        let (_, value) = page.split_once(&format!(" data-{name}=\"")).unwrap();
        value.split_once('"').unwrap().0
    };
    format!("{}&seen={}", value("follow"), value("seen"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_changes_is_a_few_events() {
    const CHANGES: usize = 200;
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    let mut events = follow(&world, &ada, None).await;
    events.next().await.unwrap();
    let began = Instant::now();
    let last = format!("Mug {CHANGES}");
    let renaming = async {
        for number in 1..=CHANGES {
            world.rename(&mug, &format!("Mug {number}")).await;
        }
    };
    let reading = async {
        let mut count = 0;
        loop {
            let event = events.next().await.unwrap();
            count += 1;
            if shown(&event).1 == [&last] {
                return count;
            }
        }
    };
    let ((), count) = tokio::join!(renaming, reading);
    let most = began.elapsed().as_millis() / PAUSE.as_millis() + 1;
    assert!(count <= most, "{count} events for {CHANGES} changes");
    drop(events);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_when_its_store_is_replaced_and_ends_when_its_user_is_erased() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    let mut events = follow(&world, &ada, None).await;
    let first = events.next().await.unwrap();
    world.rebuild("rebuild").await;
    world.order(&ada, &[&tent]).await;
    let second = events.next().await.unwrap();
    assert_eq!(shown(&second).1, ["Tent"]);
    assert_ne!(first.id, second.id);
    world.rename(&mug, "Cup").await;
    assert_eq!(shown(&events.next().await.unwrap()).1, ["Cup"]);

    erase(&world, &ada).await;
    let last = events.next().await.unwrap();
    assert_eq!((&*last.name, &last.data), ("erased", &json!({})));
    assert_eq!(events.next().await, None);
    let path = format!("/users/{}/purchases", ada.id());
    let gone = Events::ask(&world.client(Service::Purchases), &path, Some(&second.id)).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_a_limited_number_of_streams() {
    let mut world = World::on_host()
        .of_services(&Service::SOURCES)
        .start()
        .await;
    let settings = |command: &mut std::process::Command| {
        command.env("HEADWATER_HTTP_STREAMS_PER_ADDRESS", "2");
        command.env("HEADWATER_HTTP_STREAMS", "3");
    };
    world.run_with(Service::Purchases, settings).await;
    let ada = world.user("ada").await;
    world.caught_up().await;
    let path = format!("/users/{}/purchases", ada.id());
    let client = world.client(Service::Purchases);
    let first = Events::open(&client, &path, None).await;
    let _second = Events::open(&client, &path, None).await;
    let refused = Events::ask(&client, &path, None).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "urn:headwater:problem:too-many-requests");
    // Others still follow, and everybody still reads.
    let other = client.from([127, 0, 0, 9].into());
    let _third = Events::open(&other, &path, None).await;
    assert_eq!(client.get(&path).await.status, StatusCode::OK);
    let refused = Events::ask(&other, &path, None).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let admin = world.admin(Service::Purchases);
    assert!((metric(&admin, "headwater_http_streams").await - 3.0).abs() < 0.1);
    drop(first);
    eventually("a free place", async || {
        let answer = Events::ask(&client, &path, None).await;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(answer.status())
        }
    })
    .await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_stream_that_there_is_not_says_why() {
    let world = World::start().await.with_styles().await;
    let ada = world.user("ada").await;
    world.caught_up().await;
    let path = format!("/users/{}/purchases", ada.id());
    let cursor = format!("{path}?cursor={}", "0".repeat(48));
    let nobody = format!("/users/{}/purchases", ada.id().replace(['0', '1'], "2"));
    for (service, path, last, status) in [
        (
            Service::Composition,
            &path,
            None,
            StatusCode::NOT_ACCEPTABLE,
        ),
        (
            Service::RequestReply,
            &path,
            None,
            StatusCode::NOT_ACCEPTABLE,
        ),
        (
            Service::Purchases,
            &path,
            Some("nonsense"),
            StatusCode::BAD_REQUEST,
        ),
        (Service::Purchases, &cursor, None, StatusCode::BAD_REQUEST),
        (Service::Purchases, &nobody, None, StatusCode::NOT_FOUND),
    ] {
        let answer = Events::ask(&world.client(service), path, last).await;
        assert_eq!(answer.status(), status, "{path} {last:?}");
        let problem: Value = answer.json().await.unwrap();
        assert!(problem["detail"].is_string(), "{problem}");
    }
    world.finish().await;
}
