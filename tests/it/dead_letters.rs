//! An event that nobody can apply, and what an operator does about it.

use e2e::world::titles;
use e2e::{Reply, Service, World, eventually};
use serde_json::{Value, json};

/// A world in which somebody published an event of an unknown kind, and what waits behind it.
struct Stuck {
    world: World,
    /// Whose orders wait.
    ada: Reply,
    /// Whose orders do not.
    bob: Reply,
    mug: Reply,
}

impl Stuck {
    async fn start() -> Self {
        let world = World::start().await;
        let ada = world.user("ada").await;
        let bob = other_partition(&world, &ada).await;
        let mug = world.product("Mug").await;
        world.order(&ada, &[&mug]).await;
        world.caught_up().await;
        let partition = headwater::partition(&ada.id());
        let jetstream = async_nats::jetstream::new(world.nats().await);
        let subject = format!("orders.v1.melted.{partition}");
        let ack = jetstream.publish(subject, "?".into()).await.unwrap();
        ack.await.unwrap();
        let tent = world.product("Tent").await;
        world.order(&ada, &[&tent]).await;
        world.order(&bob, &[&tent]).await;
        world.caught_up().await;
        Self {
            world,
            ada,
            bob,
            mug,
        }
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

    /// The titles that are shown now, whatever waits.
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
        assert_eq!(self.shown(&self.bob).await, ["Tent"], "others go on");
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
        let folded = self.world.fold("rebuild").await;
        assert_eq!(
            folded.differences.map(|found| found.count),
            Some(0),
            "also folded anew"
        );
        assert_eq!(self.shown(&self.ada).await, ["Mug", "Tent"]);
        assert!(
            self.letters().await.is_empty(),
            "what was discarded stays so"
        );
    }
}

/// A user whose orders are in another partition than `user`'s.
async fn other_partition(world: &World, user: &Reply) -> Reply {
    let taken = headwater::partition(&user.id());
    for number in 0.. {
        let other = world.user(&format!("bob{number}")).await;
        if headwater::partition(&other.id()) != taken {
            return other;
        }
    }
    unreachable!("there are 64 partitions")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_an_unknown_event_goes_on_once_that_is_discarded() {
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

/// `purchases` dies at `point` of a discard, which is asked for again when it is back.
async fn dies_at(point: &str) {
    let mut stuck = Stuck::start().await;
    stuck.world.stop(Service::Purchases).await;
    let armed = |command: &mut std::process::Command| {
        command.env("HEADWATER_CRASH", point);
    };
    stuck.world.run_with(Service::Purchases, armed).await;
    assert!(stuck.discard().await.is_err(), "no answer came");
    assert!(stuck.world.process(Service::Purchases).crashed());
    stuck.world.kill(Service::Purchases).await;
    stuck.world.run(Service::Purchases).await;
    stuck.world.caught_up().await;
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
