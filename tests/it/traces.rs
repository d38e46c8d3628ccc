//! OpenTelemetry: one trace per command, and nothing if traces are off.

use std::time::{Duration, Instant};

use e2e::client::{Reply, send};
use e2e::collector::Collector;
use e2e::faults::{logged, metric};
use e2e::{Service, World, eventually};
use headwater::operator::RebuildState;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;
use serde_json::json;
use tokio::net::TcpListener;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// Sends a command with a trace of its client, sampled or not.
async fn register(world: &World, name: &str, flags: &str) -> Reply {
    let users = world.client(Service::Users);
    let body = json!({ "name": name, "email": format!("{name}@example.com") });
    let request = users
        .request(Method::POST, "/users")
        .header("traceparent", format!("00-{TRACE}-{CLIENT}-{flags}"));
    let reply = send(request.json(&body)).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    reply
}

/// The header `traceparent` of a source's event.
async fn header(world: &World, source: Service, sequence: u64) -> Option<String> {
    let stream = world.stream(source).await;
    let event = stream.get_raw_message(sequence).await.unwrap();
    event.headers.get("traceparent").map(ToString::to_string)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_one_trace_from_the_request_to_every_copy() {
    let collector = Collector::start().await;
    let mut world = World::on_host().empty();
    for service in Service::ALL {
        world.run_with(service, collector.of()).await;
    }
    let (user, mug) = (world.user("ada").await, world.product("Mug").await);
    let after = format!("{},{}", user.position(), mug.position());
    let request = world
        .client(Service::Orders)
        .request(Method::POST, &format!("/orders?after={after}"))
        .header("traceparent", format!("00-{TRACE}-{CLIENT}-01"))
        .json(&json!({ "user_id": user.id(), "product_ids": [mug.id()] }));
    let order = send(request).await;
    assert_eq!(order.status, 201, "{}", order.text);

    let request = collector.span(TRACE, "orders", "POST /orders").await;
    assert_eq!(request.parent, CLIENT, "not the client's span");
    assert_eq!(request.kind, SpanKind::Server);
    assert_eq!(request.facts["http.response.status_code"], "201");
    let write = collector.span(TRACE, "orders", "write").await;
    assert_eq!(write.parent, request.id);
    let publish = collector
        .span(TRACE, "orders", "publish orders.v1.placed")
        .await;
    assert_eq!(
        (&publish.parent, publish.kind),
        (&write.id, SpanKind::Producer)
    );
    let apply = collector
        .span(TRACE, "purchases", "apply orders.v1.placed")
        .await;
    assert_eq!(
        (&apply.parent, apply.kind),
        (&publish.id, SpanKind::Consumer)
    );
    assert_eq!(apply.facts["headwater.position"], "1");
    let traceparent = header(&world, Service::Orders, 1).await;
    assert_eq!(traceparent, Some(format!("00-{TRACE}-{}-01", publish.id)));
    let names: Vec<_> = collector.of_trace(TRACE);
    assert!(names.iter().all(|span| !span.failed), "{names:?}");
    let of_trace = |name: &str| names.iter().filter(|span| span.name == name).count();
    assert_eq!((of_trace("write"), of_trace("POST /orders")), (1, 1));

    // A rebuild is not part of the trace that caused its events. Spans come in order, so those of
    // the rebuild would come before the next ones.
    let rebuilt = world.rebuild("rebuild").await;
    assert_eq!(rebuilt.state, RebuildState::Done, "{rebuilt:?}");

    // Two services apply a registration.
    let registered = register(&world, "bob", "01").await;
    assert_eq!(registered.position(), "users:2");
    for service in ["orders", "purchases"] {
        let apply = collector
            .span(TRACE, service, "apply users.v1.registered")
            .await;
        assert_eq!(apply.facts["headwater.position"], "2");
    }
    let spans = collector.of_trace(TRACE);
    let applied = spans
        .iter()
        .filter(|span| span.name == "apply orders.v1.placed");
    assert_eq!(applied.count(), 1, "{spans:?}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_put_together_from_others_is_one_trace() {
    let collector = Collector::start().await;
    let mut world = World::on_host().empty();
    for service in Service::ALL.into_iter().chain(Service::STYLES) {
        if service != Service::Purchases {
            world.run_with(service, collector.of()).await;
        }
    }
    for style in [Service::Composition, Service::RequestReply] {
        world.answering(style).await;
    }
    let ada = world.user("ada").await;
    for (style, asked, answered) in [
        (Service::Composition, "GET", "GET /users/{id}"),
        (
            Service::RequestReply,
            "ask inquiry.users.v1.asked",
            "answer inquiry.users.v1.asked",
        ),
    ] {
        let trace = format!("{:032x}", u128::from(ada.id().len() as u64) + style as u128);
        let path = format!("/users/{}/purchases", ada.id());
        let request = world
            .client(style)
            .request(Method::GET, &path)
            .header("traceparent", format!("00-{trace}-{CLIENT}-01"));
        assert_eq!(send(request).await.status, 200);
        let answer = collector.span(&trace, "users", answered).await;
        let name = "GET /users/{id}/purchases";
        let request = collector.span(&trace, style.name(), name).await;
        let spans = collector.of_trace(&trace);
        let question = spans.iter().find(|span| span.id == answer.parent);
        let question = question.unwrap_or_else(|| panic!("{spans:?}"));
        assert_eq!(question.service, style.name());
        assert_eq!(question.name, asked);
        assert_eq!(question.parent, request.id);
        let read = collector.span(&trace, "users", "read").await;
        assert_eq!(read.parent, answer.id);
    }
    for service in [Service::Composition, Service::RequestReply] {
        world.stop(service).await;
    }
    world.run(Service::Purchases).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_endpoint_no_event_carries_a_trace() {
    let world = World::on_host().start().await;
    register(&world, "ada", "01").await;
    world.caught_up().await;
    assert_eq!(header(&world, Service::Users, 1).await, None);
    let text = world.admin(Service::Users).get("/metrics").await.text;
    assert!(!text.contains("headwater_trace_spans_total"), "{text}");
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_leaves_no_trace_anywhere() {
    let collector = Collector::start().await;
    let mut world = World::on_host().empty();
    for service in Service::ALL {
        world
            .run_with(service, |command| {
                collector.of()(command);
                command
                    .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
                    .env("OTEL_TRACES_SAMPLER_ARG", "0");
            })
            .await;
    }
    world.user("nobody-asked").await;
    register(&world, "not-wanted", "00").await;
    register(&world, "wanted", "01").await;
    // Spans come in order: those of the others would be here by now.
    collector
        .span(TRACE, "purchases", "apply users.v1.registered")
        .await;
    let spans = collector.seen();
    assert!(spans.iter().all(|span| span.trace == TRACE), "{spans:?}");
    let requests = spans.iter().filter(|span| span.name == "POST /users");
    assert_eq!(requests.count(), 1, "{spans:?}");
    for (sequence, is_traced) in [(1, false), (2, false), (3, true)] {
        let traceparent = header(&world, Service::Users, sequence).await;
        assert_eq!(
            traceparent.is_some(),
            is_traced,
            "{sequence}: {traceparent:?}"
        );
    }
    world.finish().await;
}

/// The median duration of some registrations.
async fn median(world: &World, prefix: &str) -> Duration {
    let mut took = Vec::new();
    for number in 0..100 {
        let begun = Instant::now();
        register(world, &format!("{prefix}{number}"), "01").await;
        took.push(begun.elapsed());
    }
    took.sort();
    took[took.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_never_answers_slows_nobody_and_is_told_of_once() {
    let mut world = World::on_host().start().await;
    let without = median(&world, "before").await;
    // Accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    world.stop(Service::Users).await;
    world
        .run_with(Service::Users, |command| {
            command
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
                .env("OTEL_EXPORTER_OTLP_TIMEOUT", "300");
        })
        .await;
    let users = world.client(Service::Users);
    let with = median(&world, "after").await;
    assert!(
        with < without * 3 + Duration::from_millis(20),
        "{with:?} with an endpoint that does not answer, {without:?} without one"
    );
    // More spans than the queue holds.
    eventually("spans to be dropped", || async {
        for _ in 0..500 {
            users.get(&format!("/users/{}", uuid::Uuid::nil())).await;
        }
        let name = r#"headwater_trace_spans_total{outcome="dropped"}"#;
        let dropped = metric(&world.admin(Service::Users), name).await;
        if dropped > 0.0 { Ok(()) } else { Err(dropped) }
    })
    .await;
    let failed = r#"headwater_trace_spans_total{outcome="failed"}"#;
    eventually("more than one batch to be dropped", || async {
        let failed = metric(&world.admin(Service::Users), failed).await;
        if failed > 600.0 { Ok(()) } else { Err(failed) }
    })
    .await;
    let warnings = logged(&world, Service::Users, "WARN", "traces cannot be delivered");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let stopping = Instant::now();
    world.stop(Service::Users).await;
    let took = stopping.elapsed();
    assert!(
        took < Duration::from_secs(6),
        "the stop waits for pending spans: {took:?}"
    );
    world.run(Service::Users).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_stops_sends_the_spans_that_wait() {
    let collector = Collector::start().await;
    let mut world = World::on_host().start().await;
    world.stop(Service::Users).await;
    world.run_with(Service::Users, collector.of()).await;
    register(&world, "ada", "01").await;
    world.stop(Service::Users).await;
    let spans = collector.of_trace(TRACE);
    let sent = |name: &str| spans.iter().any(|span| span.name == name);
    assert!(sent("POST /users") && sent("write"), "{spans:?}");
    world.run(Service::Users).await;
    world.finish().await;
}
