//! The query service in its three styles: the same answers, what differs when a service is slow or
//! down, what an answer costs, and the messages on the bus.

mod answers;
mod api;
mod bus;
mod cost;
mod faults;
mod pages;

use std::process::Command;

use e2e::world::after;
use e2e::{Reply, Service, World, eventually};
use futures_util::future::join_all;

/// The styles that ask the sources for each answer.
const ASKING: [Service; 2] = [Service::Composition, Service::RequestReply];

/// A user who ordered two products, known to all styles.
struct Ada {
    id: String,
    path: String,
}

impl Ada {
    async fn with_two_orders(world: &World) -> Self {
        let user = world.user("ada").await;
        let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
        world.order(&user, &[&mug]).await;
        world.order(&user, &[&tent, &mug]).await;
        world.caught_up().await;
        let ada = Self {
            path: format!("/users/{}/purchases", user.id()),
            id: user.id(),
        };
        same_answer(world, &ada.id).await;
        ada
    }

    /// A style's current answer.
    async fn asks(&self, world: &World, style: Service) -> Reply {
        world.client(style).get(&self.path).await
    }

    /// Waits until a style answers again.
    async fn is_answered(&self, world: &World, style: Service) -> Reply {
        eventually("an answer again", || async {
            match self.asks(world, style).await {
                reply if reply.status == 200 => Ok(reply),
                reply => Err(format!("{}: {}", style.name(), reply.text)),
            }
        })
        .await
    }
}

/// Restarts a style with these flags.
async fn run_again(world: &mut World, style: Service, flags: &[&str]) {
    world.stop(style).await;
    let flagged = |command: &mut Command| {
        command.args(flags);
    };
    world.run_with(style, flagged).await;
    world.answering(style).await;
}

/// The answer of all styles for a user, once the replica has caught up. Identical byte for byte,
/// except `as_of`.
async fn same_answer(world: &World, user: &str) -> Reply {
    world.caught_up().await;
    let [replica, others @ ..] = Service::STYLES;
    let reply = world.purchases_by(replica, user, "").await;
    for style in others {
        let other = world.purchases_by(style, user, "").await;
        let what = format!("{} differs from the replica", style.name());
        assert_eq!(other.status, reply.status, "{what}: {}", other.text);
        assert_eq!(without_as_of(&other), without_as_of(&reply), "{what}");
        assert_eq!(other.content_type, reply.content_type, "{what}");
    }
    reply
}

fn without_as_of(reply: &Reply) -> &str {
    let (before, _) = reply
        .text
        .split_once(r#","as_of":"#)
        .unwrap_or((&reply.text, ""));
    before
}

/// Creates `count` products concurrently.
async fn products(world: &World, count: usize) -> Vec<Reply> {
    let titles: Vec<String> = (0..count).map(|n| format!("Thing {n}")).collect();
    join_all(titles.iter().map(|title| world.product(title))).await
}

/// Asserts the problem for a source that did not answer.
fn assert_names(style: Service, source: Service, reply: &Reply) {
    let (style, source) = (style.name(), source.name());
    assert_eq!(
        reply.status, 503,
        "{style}, {source} is away: {}",
        reply.text
    );
    assert_eq!(reply.content_type, "application/problem+json", "{style}");
    assert_eq!(reply.retry_after.as_deref(), Some("1"), "{style}");
    let detail = reply.json["detail"].as_str().unwrap();
    assert!(
        detail.starts_with(source),
        "{style} does not name {source}: {detail}"
    );
}
