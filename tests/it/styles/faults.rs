//! What each style does while a service is down, slow or frozen.

use std::time::{Duration, Instant};

use e2e::{Service, World, eventually};

use super::{ASKING, Ada, assert_names, run_again, same_answer};

#[tokio::test(flavor = "multi_thread")]
async fn with_a_source_down_who_asks_it_fails_and_names_it_and_the_copy_answers() {
    let mut world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    for source in Service::SOURCES {
        world.kill(source).await;
        for style in ASKING {
            let reply = ada.asks(&world, style).await;
            assert_names(style, source, &reply);
            // A broker that has not noticed yet still forwards a question to the stopped service,
            // but not the next one.
            eventually("a clear error", || async {
                let reply = ada.asks(&world, style).await;
                if reply.text.contains("cannot be reached") {
                    Ok(())
                } else {
                    Err(reply.text)
                }
            })
            .await;
        }
        assert_eq!(ada.asks(&world, Service::Purchases).await.status, 200);
        world.run(source).await;
        all_answer(&world, &ada).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_slow_makes_the_answers_slow_of_who_asks_it() {
    const SLOW: Duration = Duration::from_millis(400);
    let world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    for source in Service::SOURCES {
        let started = Instant::now();
        world.pause(source);
        let (mut composition, mut inquiry) = (
            std::pin::pin!(ada.asks(&world, Service::Composition)),
            std::pin::pin!(ada.asks(&world, Service::RequestReply)),
        );
        // The replica answers while the source is frozen; the other styles do not.
        let replica = tokio::select! {
            biased;
            reply = &mut composition => panic!("{source:?} was not needed: {}", reply.text),
            reply = &mut inquiry => panic!("{source:?} was not needed: {}", reply.text),
            reply = ada.asks(&world, Service::Purchases) => reply,
        };
        assert_eq!(replica.status, 200);
        let early = tokio::time::timeout(SLOW, async {
            tokio::select! {
                reply = &mut composition => reply,
                reply = &mut inquiry => reply,
            }
        });
        let early = early.await;
        world.resume(source);
        assert!(early.is_err(), "{source:?} was not needed: {early:?}");
        for (style, reply) in ASKING.into_iter().zip([composition.await, inquiry.await]) {
            assert_eq!(reply.status, 200, "{} {}", style.name(), reply.text);
        }
        assert!(started.elapsed() >= SLOW);
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_frozen_is_named_at_the_deadline() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let mut world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    for style in ASKING {
        run_again(
            &mut world,
            style,
            &["--answer-timeout", &format!("{}ms", DEADLINE.as_millis())],
        )
        .await;
    }
    for source in Service::SOURCES {
        world.pause(source);
        for style in ASKING {
            let started = Instant::now();
            let reply = ada.asks(&world, style).await;
            assert_names(style, source, &reply);
            assert!(
                reply.text.contains("did not answer in time"),
                "{}",
                reply.text
            );
            assert!(started.elapsed() >= DEADLINE, "{}", style.name());
        }
        assert_eq!(ada.asks(&world, Service::Purchases).await.status, 200);
        world.resume(source);
        all_answer(&world, &ada).await;
    }
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_broker_only_inquiry_does_not_answer() {
    let mut world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    world.broker.kill().unwrap();
    for style in [Service::Composition, Service::Purchases] {
        let reply = ada.asks(&world, style).await;
        assert_eq!(reply.status, 200, "{}: {}", style.name(), reply.text);
    }
    let reply = eventually("inquiry to notice", || async {
        let reply = ada.asks(&world, Service::RequestReply).await;
        if reply.text.contains("not connected to NATS") {
            Ok(reply)
        } else {
            Err(reply.text)
        }
    })
    .await;
    assert_names(Service::RequestReply, Service::Users, &reply);
    world.broker.restart().unwrap();
    all_answer(&world, &ada).await;
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_accept_writes_while_all_styles_are_down_and_these_answer_when_they_are_back() {
    let mut world = World::start_styles().await;
    let ada = Ada::with_two_orders(&world).await;
    for style in Service::STYLES {
        world.stop(style).await;
    }
    let bob = world.user("bob").await;
    let kite = world.product("Kite").await;
    world.order(&bob, &[&kite]).await;
    for style in Service::STYLES {
        world.run(style).await;
    }
    all_answer(&world, &ada).await;
    let reply = same_answer(&world, &bob.id()).await;
    assert_eq!(reply.json["purchases"][0]["title"], "Kite");
    world.finish().await;
}

/// Waits until all styles answer again.
async fn all_answer(world: &World, ada: &Ada) {
    for style in Service::STYLES {
        ada.is_answered(world, style).await;
    }
}
