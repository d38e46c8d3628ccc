//! The style request-reply, seen on the bus.

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use e2e::{Service, World, eventually};
use futures_util::StreamExt as _;
use futures_util::future::select_all;
use prost::Message as _;
use shop_events::{UserAnswered, UserAsked};

use super::{Ada, assert_names, run_again};

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_conversation_can_be_listened_to() {
    let world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    let mut heard = listen(&world, "inquiry.>").await;
    assert_eq!(ada.asks(&world, Service::RequestReply).await.status, 200);
    let mut messages = Vec::new();
    while messages.len() < 6 {
        messages.push(heard.next().await.unwrap());
    }
    let (questions, answers): (Vec<_>, Vec<_>) =
        messages.iter().partition(|event| event.reply.is_some());
    let asked: Vec<_> = questions
        .iter()
        .map(|event| event.subject.as_str())
        .collect();
    assert_eq!(asked.len(), 3);
    for source in Service::SOURCES {
        let subject = format!("inquiry.{}.v1.asked", source.name());
        assert!(asked.contains(&subject.as_str()), "{asked:?}");
    }
    for question in questions {
        let answer = answers
            .iter()
            .find(|answer| Some(&answer.subject) == question.reply.as_ref());
        let headers = answer.unwrap().headers.as_ref().unwrap();
        let source = question.subject.split('.').nth(1).unwrap();
        let as_of = headers.get("Headwater-Position").unwrap().as_str();
        assert!(as_of.starts_with(source), "{as_of}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_too_late_and_answers_for_nobody_are_counted_and_dropped() {
    let mut world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    run_again(
        &mut world,
        Service::RequestReply,
        &["--answer-timeout", "400ms"],
    )
    .await;
    let mut heard = listen(&world, "inquiry.users.v1.asked").await;
    world.pause(Service::Users);
    assert_names(
        Service::RequestReply,
        Service::Users,
        &ada.asks(&world, Service::RequestReply).await,
    );
    world.resume(Service::Users);
    expect_stray(&world, "late", 1).await;

    let reply = heard.next().await.unwrap().reply.unwrap();
    let (instance, _) = reply.rsplit_once('.').unwrap();
    let client = world.nats().await;
    for unknown in ["0", "999999", "x"] {
        client
            .publish(format!("{instance}.{unknown}"), "?".into())
            .await
            .unwrap();
    }
    expect_stray(&world, "unknown", 3).await;
    let again = ada.is_answered(&world, Service::RequestReply).await;
    assert_eq!(again.json["purchases"].as_array().unwrap().len(), 2);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_questions_are_refused_and_then_answered_again() {
    let mut world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    for style in super::ASKING {
        run_again(
            &mut world,
            style,
            &["--questions-max", "2", "--answer-timeout", "20s"],
        )
        .await;
        world.pause(Service::Users);
        let many = (0..12).map(|_| Box::pin(ada.asks(&world, style)));
        // The first of all answers; no other can come while `users` is frozen.
        let (first, _, rest) = select_all(many).await;
        assert_eq!(first.status, 503, "{}", style.name());
        assert!(first.text.contains("too many questions"), "{}", first.text);
        world.resume(Service::Users);
        for reply in futures_util::future::join_all(rest).await {
            let refused = reply.text.contains("too many questions");
            assert!(
                refused || reply.status == 200,
                "{}: {}",
                style.name(),
                reply.text
            );
        }
        let reply = ada.asks(&world, style).await;
        assert_eq!(reply.status, 200, "{}: {}", style.name(), reply.text);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_question_is_answered_with_what_is_wrong() {
    let world = World::start_styles().await;
    let client = world.nats().await;
    let many = shop_events::ProductsAsked {
        product_ids: vec![uuid::Uuid::nil().to_string(); 51],
    };
    for (subject, question, why) in [
        (
            "inquiry.users.v1.asked",
            Bytes::from_static(b"\xff"),
            "send a question",
        ),
        ("inquiry.users.v1.asked", Bytes::new(), "`` is not a UUID"),
        ("inquiry.orders.v1.asked", Bytes::new(), "`` is not a UUID"),
        (
            "inquiry.products.v1.asked",
            many.encode_to_vec().into(),
            "at most 50",
        ),
    ] {
        let answer = client.request(subject, question).await.unwrap();
        let headers = answer.headers.unwrap();
        assert_eq!(
            headers.get("Nats-Service-Error-Code").unwrap().as_str(),
            "400"
        );
        let error = headers.get("Nats-Service-Error").unwrap().as_str();
        assert!(error.contains(why), "{subject}: {error}");
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_answer_is_503_that_names_the_source() {
    let mut world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    world.stop(Service::Users).await;
    let mut asked = listen(&world, "inquiry.users.v1.asked").await;
    let client = world.nats().await;
    let known = UserAnswered {
        user_id: ada.id.clone(),
        is_known: true,
    };
    let somebody_else = UserAnswered {
        user_id: String::new(),
        is_known: true,
    };
    for (payload, position, why) in [
        (b"\xff".to_vec(), "users:1", "invalid answer"),
        (known.encode_to_vec(), "soon", "Headwater-Position"),
        (known.encode_to_vec(), "orders:1", "not a position of users"),
        (somebody_else.encode_to_vec(), "users:1", "another user"),
    ] {
        let answer = async {
            let Message {
                payload: question,
                reply,
                ..
            } = asked.next().await.unwrap();
            assert_eq!(UserAsked::decode(question).unwrap().user_id, ada.id);
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Headwater-Position", position);
            let sent = client.publish_with_headers(reply.unwrap(), headers, payload.into());
            sent.await.unwrap();
        };
        let (reply, ()) = tokio::join!(ada.asks(&world, Service::RequestReply), answer);
        assert_names(Service::RequestReply, Service::Users, &reply);
        assert!(reply.text.contains(why), "{}", reply.text);
    }
    drop(asked);
    world.run(Service::Users).await;
    ada.is_answered(&world, Service::RequestReply).await;
    world.finish().await;
}

async fn listen(world: &World, subject: &'static str) -> Subscriber {
    let client = world.nats().await;
    let subscriber = client.subscribe(subject).await.unwrap();
    client.flush().await.unwrap();
    subscriber
}

/// Waits until at least this many answers of this kind were counted.
async fn expect_stray(world: &World, kind: &str, least: u64) {
    let name = format!(r#"headwater_request_reply_stray_answers_total{{kind="{kind}"}} "#);
    eventually(&name, || async {
        let metrics = world
            .admin(Service::RequestReply)
            .get("/metrics")
            .await
            .text;
        let counted = metrics.lines().find_map(|line| line.strip_prefix(&name));
        match counted.and_then(|count| count.parse::<u64>().ok()) {
            Some(count) if count >= least => Ok(()),
            _ => Err(metrics),
        }
    })
    .await;
}
