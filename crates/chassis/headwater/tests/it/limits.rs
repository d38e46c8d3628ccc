//! Limits of the server or the account, which an operator may change: answers fit into them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::{
    SensorRead, Tasks, World, append, broker_with, bus, eventually, eventually_readings,
    eventually_says, folder, is, jetstream, large, open, read, reads,
};

/// An event that fits into the server's limit, while its base64 does not.
const LARGE: usize = 60_000;

/// Events of all sizes, with the values 1 to 600.
fn mixed() -> Vec<SensorRead> {
    let sized = |value| match value % 100 {
        7 => large(value, LARGE),
        _ => read("attic", value),
    };
    (1..=600).map(sized).collect()
}

/// Fills a gap of [`mixed`] events at a server with these `settings`.
async fn fill_a_gap(settings: &str) {
    let mut world = World::with_soft_stream_at(broker_with(settings)).await;
    world.relay.operator(&world.source, &world.bus);
    world.stop_reader().await;
    append(&world.source, mixed()).await;
    eventually_says(&world.relay.health, "relay", "published up to 600\"").await;
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    stream.purge().sequence(600).await.unwrap();
    world.start_reader().await;
    eventually_readings(&world.copy, &(1..=600).collect::<Vec<_>>()).await;
    world.stop().await;
}

#[tokio::test]
async fn a_gap_is_filled_in_pages_that_a_small_max_payload_has_room_for() {
    fill_a_gap("max_payload: 65536").await;
}

/// The server does not report the account's limit; it closes the connection.
#[tokio::test]
async fn a_gap_is_filled_where_the_account_takes_less_than_the_server_says() {
    fill_a_gap(
        r"accounts { SHOP: { jetstream: enabled, users: [{ user: shop, password: shop }],
             limits: { max_payload: 65536 } } }
           no_auth_user: shop",
    )
    .await;
}

/// Sends a request to `sensors`; returns the answer, or the refusal with its code.
async fn ask(world: &World, endpoint: &str, request: &str) -> Result<Value, String> {
    let subject = format!("headwater.sensors.{endpoint}");
    let asked = world
        .bus
        .client()
        .request(subject, request.to_owned().into());
    let answer = asked.await.map_err(|error| error.to_string())?;
    let header = |name| Some(answer.headers.as_ref()?.get(name)?.to_string());
    match header("Nats-Service-Error") {
        Some(why) => Err(format!(
            "{} {why}",
            header("Nats-Service-Error-Code").unwrap()
        )),
        None => Ok(serde_json::from_slice(&answer.payload).unwrap()),
    }
}

#[tokio::test]
async fn an_event_that_one_answer_has_no_room_for_is_named_and_given_in_parts() {
    let mut world = World::with_soft_stream_at(broker_with("max_payload: 65536")).await;
    world.relay.operator(&world.source, &world.bus);
    append(
        &world.source,
        vec![read("attic", 1), large(2, LARGE), read("attic", 3)],
    )
    .await;
    eventually("an answer", async || {
        ask(&world, "events", r#"{"from":1,"limit":9}"#).await
    })
    .await;
    let page = ask(&world, "events", r#"{"from":1,"limit":9}"#)
        .await
        .unwrap();
    assert_eq!(page["events"].as_array().unwrap().len(), 1, "{page}");
    let refused = ask(&world, "events", r#"{"from":2,"limit":9}"#)
        .await
        .unwrap_err();
    assert!(
        refused.starts_with("413 the event 2 (in parts:"),
        "{refused}"
    );
    assert!(refused.contains("room for 64512"), "{refused}");
    let (mut payload, mut parts) = (Vec::new(), 0);
    loop {
        let request = json!({"from": 2, "offset": payload.len()}).to_string();
        let part = ask(&world, "events", &request).await.unwrap();
        let event = &part["events"][0];
        payload.extend(
            BASE64_STANDARD
                .decode(event["payload"].as_str().unwrap())
                .unwrap(),
        );
        parts += 1;
        if part["rest"].is_null() {
            break;
        }
    }
    let whole = prost::Message::encode_to_vec(&large(2, LARGE));
    assert!(
        payload == whole && parts == 2,
        "{parts} parts, {} bytes",
        payload.len()
    );
    let beyond = json!({"from": 2, "offset": whole.len() + 1}).to_string();
    let refused = ask(&world, "events", &beyond).await.unwrap_err();
    assert!(refused.starts_with("400 the event 2 has"), "{refused}");
    world.stop().await;
}

#[tokio::test]
async fn who_asks_for_events_says_how_large_the_answer_may_be() {
    let mut world = World::with_soft_stream_at(broker_with("")).await;
    world.relay.operator(&world.source, &world.bus);
    append(&world.source, reads(1..=1000)).await;
    let mut sizes = Vec::new();
    for max_bytes in [20_000, 40_000] {
        let request = json!({"from": 1, "limit": 1000, "max_bytes": max_bytes}).to_string();
        let page = eventually("an answer", async || ask(&world, "events", &request).await).await;
        assert!(page.to_string().len() <= max_bytes, "{max_bytes}");
        sizes.push(page["events"].as_array().unwrap().len());
    }
    assert!(
        0 < sizes[0] && sizes[0] < sizes[1] && sizes[1] < 1000,
        "{sizes:?}"
    );
    world.stop().await;
}

/// A header has one line. The client library panics on a line break.
#[tokio::test]
async fn a_refusal_that_quotes_a_line_break_is_sent_and_the_service_lives() {
    let mut world = World::with_soft_stream_at(broker_with("")).await;
    world.relay.operator(&world.source, &world.bus);
    let long = "x".repeat(5000);
    for request in [
        r#"{"from":1,"a\r\nb":2}"#.to_owned(),
        format!(r#"{{"{long}":1}}"#),
    ] {
        let refused = eventually("a refusal", async || {
            ask(&world, "events", &request).await.map_or_else(
                |refused| {
                    if refused.starts_with("400") {
                        Ok(refused)
                    } else {
                        Err(refused)
                    }
                },
                |answer| Err(answer.to_string()),
            )
        })
        .await;
        assert!(
            refused.contains("unknown field") && refused.len() < 700,
            "{refused}"
        );
    }
    ask(&world, "status", "").await.unwrap();
    world.stop().await;
}

/// The server forgets a refused subscription. The client subscribes again.
#[tokio::test(flavor = "multi_thread")]
async fn refused_subscriptions_are_named_and_made_again_when_they_are_allowed() {
    let settings = |denied: &str| {
        format!(
            r#"authorization {{ users: [{{ user: shop, password: shop,
                 permissions: {{ publish: ">", subscribe: {{ allow: ">", deny: "{denied}" }} }} }}] }}
               no_auth_user: shop"#
        )
    };
    let broker = broker_with(&settings("headwater.sensors.events"));
    let (folder, health) = (folder(), headwater::Health::new());
    let source = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut tasks = Tasks::none();
    tasks.operator(&source, &bus);
    let (reporting, reported) = (bus.clone(), health.clone());
    tasks.run("nats", |stop| reporting.report(reported, stop));
    eventually_says(&health, "nats", "compare its permissions").await;
    broker.reload_with(&settings("nothing")).unwrap();
    eventually("the endpoints answer", async || {
        let asked = bus
            .client()
            .request("headwater.sensors.events", r#"{"from":1}"#.into());
        asked.await.map_err(|error| error.to_string())
    })
    .await;
    eventually("all is well", async || {
        health.parts().remove("nats").map_or(Ok(()), Err)
    })
    .await;
    tasks.stop().await;
}

/// The server does not announce the new limit. The first message that is too large costs a
/// connection.
#[tokio::test]
async fn a_limit_that_is_lowered_while_the_service_runs_is_kept_to() {
    let broker = broker_with("");
    let mut world = World::with_soft_stream_at(broker).await;
    world.relay.operator(&world.source, &world.bus);
    append(&world.source, mixed()).await;
    world.broker.reload_with("max_payload: 65536").unwrap();
    eventually("a page that fits", async || {
        let page = ask(&world, "events", r#"{"from":1,"limit":600}"#).await?;
        is(page["events"].as_array().map(Vec::len) < Some(7), &true)
            .map_err(|_| page["events"].to_string())
    })
    .await;
    assert_eq!(world.bus.max_payload(), 65536);
    world.stop().await;
}
