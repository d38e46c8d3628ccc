//! Hashing passwords is expensive on purpose: a flood of registrations must not harm other
//! requests.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::backlog::peak_kib;
use e2e::client::{Client, Reply};
use e2e::faults::metric;
use e2e::{Service, World, eventually};
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Connections that register people, one person after another.
const FLOOD: usize = 300;

/// The extra memory, in KiB, that a flood may cost compared with a few registrations.
const ALLOWED_KIB: u64 = 48 * 1024;

async fn register(users: &Client) -> Reply {
    let email = format!("{}@example.com", Uuid::now_v7());
    let person = json!({"name": "Ada", "email": email, "password": "correct horse"});
    users.post("/users", &person).await
}

/// Registers people until `stop`; returns how many registrations were refused.
async fn flood(users: Client, stop: Arc<AtomicBool>) -> usize {
    let mut refused = 0;
    while !stop.load(Ordering::Relaxed) {
        let reply = register(&users).await;
        if reply.status == 201 {
            continue;
        }
        assert_eq!(reply.status, 429, "{}", reply.text);
        assert_eq!(reply.content_type, "application/problem+json");
        assert_eq!(
            reply.json["type"],
            "urn:headwater:problem:too-many-requests"
        );
        let seconds = reply.retry_after.expect("Retry-After").parse::<u64>();
        assert!(seconds.is_ok_and(|seconds| seconds > 0));
        refused += 1;
    }
    refused
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_registrations_stops_nobody_elses_and_takes_no_memory() {
    let mut world = World::on_host().empty();
    world.run(Service::Users).await;
    let users = world.client(Service::Users);
    let pid = world.process(Service::Users).pid();
    let some = (0..8).map(|_| register(&users));
    for reply in futures_util::future::join_all(some).await {
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    let before = peak_kib(pid);

    let stop = Arc::new(AtomicBool::new(false));
    let attacker = users.from(IpAddr::from([127, 0, 0, 2]));
    let mut attackers = JoinSet::new();
    for _ in 0..FLOOD {
        attackers.spawn(flood(attacker.clone(), Arc::clone(&stop)));
    }
    let admin = world.admin(Service::Users);
    eventually("a full queue", || async {
        let refused = metric(&admin, "users_password_hashes_refused_total").await;
        let waiting = metric(&admin, "users_password_hashes_waiting").await;
        if refused > 0.0 && waiting > 32.0 {
            Ok(())
        } else {
            Err(format!("{refused} refused, {waiting} wait"))
        }
    })
    .await;
    for _ in 0..10 {
        let reply = register(&users).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
    }
    stop.store(true, Ordering::Relaxed);
    let refused: usize = attackers.join_all().await.iter().sum();
    assert!(refused > 0);
    let after = peak_kib(pid);
    assert!(
        after < before + ALLOWED_KIB,
        "{before} KiB before, {after} after"
    );
    world.stop(Service::Users).await;
    world.abandon();
}
