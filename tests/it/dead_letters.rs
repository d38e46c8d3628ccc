//! Dead letters, and what an operator does about them.

use e2e::world::{after, titles};
use e2e::{Reply, Service, World, eventually};
use prost::Message as _;
use serde_json::{Value, json};
use shop_events::OrderPlaced;

/// A world with an order for an invalid product id, published by hand, and an order blocked by it.
struct Stuck {
    world: World,
    /// A user whose key is blocked.
    ada: Reply,
    /// A user whose key is not.
    bob: Reply,
    mug: Reply,
    /// The blocked order.
    waiting: Reply,
}

impl Stuck {
    async fn start() -> Self {
        let world = World::start().await;
        let (ada, bob) = (world.user("ada").await, world.user("bob").await);
        let mug = world.product("Mug").await;
        world.order(&ada, &[&mug]).await;
        world.caught_up().await;
        let wrong = OrderPlaced {
            user_id: ada.id(),
            product_ids: vec!["a mug".to_owned()],
            ..OrderPlaced::default()
        };
        publish(&world, headwater::subject_of(&wrong), wrong.encode_to_vec()).await;
        let tent = world.product("Tent").await;
        let waiting = world.order(&ada, &[&tent]).await;
        world.order(&bob, &[&tent]).await;
        let stuck = Self {
            world,
            ada,
            bob,
            mug,
            waiting,
        };
        stuck.settled().await;
        stuck
    }

    /// Waits until everything is applied or dead-lettered.
    async fn settled(&self) {
        eventually("two dead letters, and the other events applied", || async {
            let (letters, shown) = (self.letters().await, self.shown(&self.bob).await);
            if letters.len() == 2 && shown == ["Tent"] {
                Ok(())
            } else {
                Err(format!("{letters:?}, {shown:?}"))
            }
        })
        .await;
    }

    async fn letters(&self) -> Vec<Value> {
        let list = || async {
            self.world
                .ask(Service::Purchases, "dead-letters.list", &json!({}))
                .await
        };
        let answer = eventually("the letters", list).await;
        answer["letters"].as_array().unwrap().clone()
    }

    /// The titles shown now, without waiting.
    async fn shown(&self, user: &Reply) -> Vec<String> {
        titles(&self.world.purchases(&user.id(), "").await.json)
    }

    async fn assert_stuck(&self) {
        let letters = self.letters().await;
        let waiting: Vec<_> = letters
            .iter()
            .map(|letter| letter["waiting"] == true)
            .collect();
        assert_eq!(waiting, [false, true], "{letters:?}");
        assert_eq!(self.shown(&self.ada).await, ["Mug"]);
        assert_eq!(
            self.shown(&self.bob).await,
            ["Tent"],
            "other keys are not blocked"
        );
    }

    async fn discard(&self) -> Result<Value, String> {
        let id = self.letters().await[0]["id"].clone();
        let request = json!({"id": id, "reason": "published by mistake"});
        self.world
            .ask(Service::Purchases, "dead-letters.discard", &request)
            .await
    }

    async fn assert_free(&self) {
        assert!(self.letters().await.is_empty());
        assert_eq!(self.shown(&self.ada).await, ["Mug", "Tent"]);
        assert_eq!(self.shown(&self.bob).await, ["Tent"]);
        self.world.order(&self.bob, &[&self.mug]).await;
        assert_eq!(self.world.titles(&self.bob.id()).await, ["Mug", "Tent"]);
        let rebuilt = self.world.rebuild("rebuild").await;
        assert_eq!(
            rebuilt.differences.map(|found| found.count),
            Some(0),
            "a rebuild gives the same"
        );
        assert_eq!(self.shown(&self.ada).await, ["Mug", "Tent"]);
        assert!(
            self.letters().await.is_empty(),
            "what was discarded stays so"
        );
    }
}

/// Publishes an event by hand.
async fn publish(world: &World, subject: String, payload: Vec<u8>) {
    let jetstream = async_nats::jetstream::new(world.nats().await);
    let ack = jetstream.publish(subject, payload.into()).await.unwrap();
    ack.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_parked_event_goes_on_once_that_is_discarded() {
    let stuck = Stuck::start().await;
    stuck.assert_stuck().await;
    let parts = stuck
        .world
        .client(Service::Purchases)
        .get("/readyz?verbose")
        .await;
    assert_eq!(
        parts.json["purchases from orders"]["state"], "degraded",
        "{}",
        parts.text
    );
    stuck.discard().await.unwrap();
    stuck.assert_free().await;
    stuck.world.finish().await;
}

/// Its key is unknown, so it blocks no key.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_does_not_decode_holds_back_no_order() {
    let world = World::start().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    let partition = headwater::partition(&ada.id());
    let subject = format!("orders.v1.placed.{partition}");
    publish(&world, subject, vec![0xff, 0xff]).await;
    let order = world.order(&ada, &[&mug]).await;
    let shown = eventually("the order to be shown", || async {
        let shown = world.purchases(&ada.id(), &after(&[&order])).await;
        if shown.status == 200 {
            Ok(shown)
        } else {
            Err(shown.text)
        }
    })
    .await;
    assert_eq!(titles(&shown.json), ["Mug"]);
    assert_eq!(
        shown.json["parked"],
        Value::Null,
        "the dead letter has no position"
    );
    let request = json!({});
    let letters = world.ask(Service::Purchases, "dead-letters.list", &request);
    let letters = letters.await.unwrap()["letters"].clone();
    let request = json!({"id": letters[0]["id"], "reason": "junk"});
    let discarded = world.ask(Service::Purchases, "dead-letters.discard", &request);
    discarded.await.unwrap();
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_an_order_that_is_parked_is_told_and_as_of_ends_before_it() {
    let stuck = Stuck::start().await;
    let position = stuck.waiting.position();
    assert_eq!(position, "orders:2");
    for asked in ["orders:2", "orders:3", "orders:1,orders:2"] {
        let reply = stuck.world.purchases(&stuck.ada.id(), asked).await;
        assert_eq!(reply.status, 503, "{}", reply.text);
        assert_eq!(reply.content_type, "application/problem+json");
        let detail = reply.json["detail"].as_str().unwrap();
        let lane = format!("key {}", stuck.ada.id());
        for told in ["`orders:2`", &lane, "since 20"] {
            assert!(detail.contains(told), "{detail}");
        }
    }
    let reply = stuck.world.purchases(&stuck.ada.id(), "orders:1").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(titles(&reply.json), ["Mug"]);
    assert_eq!(reply.json["as_of"]["orders"], 1, "{}", reply.text);
    assert_eq!(reply.json["parked"], json!({"orders": 2}));
    assert!(reply.position().starts_with("orders:1,"), "{reply:?}");
    let page = format!("/users/{}", stuck.ada.id());
    let page = stuck.world.client(Service::Purchases).get(&page).await;
    assert!(
        page.text.contains("orders:2 could not be applied"),
        "{}",
        page.text
    );

    stuck.discard().await.unwrap();
    let reply = stuck.world.purchases(&stuck.ada.id(), "orders:2").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(titles(&reply.json), ["Mug", "Tent"]);
    assert_eq!(reply.json["parked"], Value::Null);
    stuck.world.finish().await;
}

/// `purchases` dies at `point` during a discard, which is repeated afterwards.
async fn dies_at(point: &str) {
    let mut stuck = Stuck::start().await;
    stuck.world.stop(Service::Purchases).await;
    let armed = |command: &mut std::process::Command| {
        command.env("HEADWATER_CRASH", point);
    };
    stuck.world.run_with(Service::Purchases, armed).await;
    assert!(stuck.discard().await.is_err(), "an answer came");
    assert!(stuck.world.process(Service::Purchases).crashed());
    stuck.world.kill(Service::Purchases).await;
    stuck.world.run(Service::Purchases).await;
    stuck.settled().await;
    stuck.assert_stuck().await;
    stuck.discard().await.unwrap();
    stuck.assert_free().await;
    stuck.world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_discard_that_dies_half_way_has_changed_nothing() {
    dies_at("dead-letter.discarded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_dies_half_way_has_changed_nothing() {
    dies_at("dead-letter.retried").await;
}
