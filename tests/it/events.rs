//! Events of the real services in the operator's tool, which is built without their types.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use e2e::world::after;
use e2e::{Service, World, eventually, program};
use headwater::schema::{BUCKET, Described};
use serde_json::{Value, json};

/// Runs the tool, with `input` on its stdin.
async fn tool(world: &World, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(program("headwater"));
    command
        .args(args)
        .args(["--server", &world.broker.url(), "--no-context"])
        .env("XDG_CACHE_HOME", world.folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("start the tool");
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(&input).expect("write to the tool");
        drop(stdin);
        child.wait_with_output().expect("wait for the tool")
    });
    run.await.expect("no panic")
}

/// The output of `headwater tail`, as JSON.
async fn tail(world: &World, args: &[&str]) -> Vec<Value> {
    let line = [&["tail", "--no-follow", "--output=json"], args].concat();
    let output = tool(world, &line, b"").await;
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_events_of_all_sources_are_found_by_the_users_id() {
    let world = World::start().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let mug = world.product("Mug").await;
    world.order(&bob, &[&mug]).await;
    let order = world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    let events = tail(&world, &["--key", &ada.id()]).await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0]["source"], "users");
    assert_eq!(events[0]["event"]["user_id"], ada.id());
    let placed = &events[1];
    assert_eq!(
        (&placed["source"], &placed["position"]),
        (&json!("orders"), &json!(2))
    );
    let event = &placed["event"];
    assert_eq!(event["order_id"], order.id());
    assert_eq!(event["product_ids"], json!([mug.id()]));
    assert_eq!(event["placed_at"], order.json["placed_at"]);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_body_is_decoded_as_translate_does_it() {
    let world = World::start().await;
    let mug = world.product("Mug").await;
    world.caught_up().await;
    let stream = world.stream(Service::Products).await;
    let stored = stream.get_raw_message(1).await.unwrap();
    let args = ["decode", "--subject", &*stored.subject];
    let output = tool(&world, &args, &stored.payload).await;
    let decoded: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let wanted = json!({
        "product_id": mug.id(), "title": "Mug", "image": "https://example.com/Mug.png",
    });
    assert_eq!(decoded, wanted);
    assert!(output.stderr.is_empty(), "{output:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_published_by_hand_is_applied_once() {
    let world = World::start().await;
    let ada = world.user("ada").await;
    let mug = world.product("Mug").await;
    world.order(&ada, &[&mug]).await;
    let changed =
        json!({"product_id": mug.id(), "title": "Cup", "image": "https://example.com/c.png"});
    let args = [
        "publish",
        "products.v1.updated",
        "--json",
        &changed.to_string(),
    ];
    let output = tool(&world, &args, b"").await;
    assert!(output.status.success(), "{output:?}");
    eventually("`purchases` to apply it", || async {
        let reply = world.purchases(&ada.id(), &after(&[&ada, &mug])).await;
        let titles = e2e::world::titles(&reply.json);
        if titles == ["Cup"] {
            Ok(())
        } else {
            Err(titles)
        }
    })
    .await;
    let report = e2e::operator::verify(&world).await;
    assert_eq!(report.exit(), cli::Exit::Done, "{report}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lost_everything_has_all_schemas_again() {
    let mut world = World::start().await;
    described(&world).await;
    world.broker.kill().unwrap();
    std::fs::remove_dir_all(world.broker.store().join("jetstream")).unwrap();
    world.broker.restart().unwrap();
    described(&world).await;
    world.finish().await;
}

/// Waits until each source has published its schema.
async fn described(world: &World) {
    eventually("three schemas", || async {
        let jetstream = async_nats::jetstream::new(world.nats().await);
        let store = jetstream.get_key_value(BUCKET).await;
        let store = store.map_err(|error| error.to_string())?;
        let mut sources = Vec::new();
        for service in Service::SOURCES {
            let entry = store.get(service.name()).await;
            let entry = entry
                .map_err(|error| error.to_string())?
                .unwrap_or_default();
            if let Ok(described) = serde_json::from_slice::<Described>(&entry) {
                sources.push(described.source);
            }
        }
        if sources.len() == 3 {
            Ok(())
        } else {
            Err(format!("{sources:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_say_in_nats_micro_info_which_messages_they_are() {
    let world = World::start().await;
    let client = world.nats().await;
    let asked = client.request("$SRV.INFO.orders", "".into());
    let answer = asked.await.unwrap();
    let info: Value = serde_json::from_slice(&answer.payload).unwrap();
    let endpoints = info["endpoints"].as_array().unwrap();
    let question = endpoints
        .iter()
        .find(|one| one["subject"] == "inquiry.orders.v1.asked");
    let metadata = &question.unwrap()["metadata"];
    assert_eq!(metadata["headwater.request"], "shop.orders.v1.OrdersAsked");
    assert_eq!(
        metadata["headwater.response"],
        "shop.orders.v1.OrdersAnswered"
    );
    assert_eq!(metadata["headwater.schema"], "headwater-schemas orders");
    world.finish().await;
}
