//! A database file that is renamed, deleted or replaced while its service has it open.

use std::fs;
use std::path::PathBuf;

use e2e::faults::says;
use e2e::{Reply, Service, World, eventually};
use serde_json::json;

use Service::Users;

async fn world_of_users() -> (World, Vec<String>) {
    let mut world = World::on_host().empty();
    world.run(Users).await;
    world.in_touch().await;
    let mut ids = Vec::new();
    for name in ["ada", "bob", "cleo"] {
        ids.push(world.user(name).await.id());
    }
    (world, ids)
}

async fn attempt(world: &World) -> Reply {
    let body = json!({"name": "Eve", "email": "eve@example.com"});
    world.client(Users).post("/users", &body).await
}

/// Asserts that a write is refused and that the service is not ready, but still answers reads.
async fn takes_no_write(world: &World, words: &str) {
    let refused = attempt(world).await;
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(
        refused.text.contains("nothing was written"),
        "{}",
        refused.text
    );
    says(&world.client(Users), "database file", "failed", words).await;
    let ready = world.client(Users).get("/readyz").await;
    assert_eq!(ready.status, 503, "{}", ready.text);
}

async fn has_all(world: &World, ids: &[String]) {
    for id in ids {
        let found = world.client(Users).get(&format!("/users/{id}")).await;
        assert_eq!(found.status, 200, "{}", found.text);
    }
}

/// The path in /proc of the process's descriptor of the deleted file `path`.
fn descriptor(pid: u32, path: &std::path::Path) -> PathBuf {
    let deleted = format!("{} (deleted)", path.display());
    let mut open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let found = open.find_map(|entry| {
        let entry = entry.unwrap().path();
        let leads_to = fs::read_link(&entry).unwrap_or_default();
        (leads_to.to_string_lossy() == deleted).then_some(entry)
    });
    found.expect("an open descriptor")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_database_takes_no_write_until_it_is_back() {
    let (mut world, mut ids) = world_of_users().await;
    let (path, aside) = (world.database(Users), world.folder().join("aside.db"));
    fs::rename(&path, &aside).unwrap();
    takes_no_write(&world, "it is gone").await;
    has_all(&world, &ids).await;

    fs::rename(&aside, &path).unwrap();
    let eve = eventually("a write", || async {
        let reply = attempt(&world).await;
        if reply.status == 201 {
            Ok(reply)
        } else {
            Err(reply.text)
        }
    })
    .await;
    ids.push(eve.id());
    world.in_touch().await;

    // A start does not create an empty one either.
    fs::rename(&path, &aside).unwrap();
    takes_no_write(&world, "it is gone").await;
    world.stop(Users).await;
    let refused = world.try_run_with(Users, |_| {}).await;
    let refused = refused.expect("it does not start").log();
    assert!(refused.contains("users.db is missing, but"), "{refused}");
    assert!(!path.exists());
    fs::rename(&aside, &path).unwrap();
    world.run(Users).await;
    has_all(&world, &ids).await;
    world.stop(Users).await;
    world.abandon();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_database_takes_no_write_and_is_saved_from_the_process_that_has_it_open() {
    let (mut world, ids) = world_of_users().await;
    let path = world.database(Users);
    fs::remove_file(&path).unwrap();
    takes_no_write(&world, "it is gone").await;
    has_all(&world, &ids).await;
    fs::copy(descriptor(world.process(Users).pid(), &path), &path).unwrap();
    takes_no_write(&world, "another file is in its place").await;
    world.stop(Users).await;
    world.run(Users).await;
    has_all(&world, &ids).await;
    assert_eq!(attempt(&world).await.status, 201);
    world.stop(Users).await;
    world.abandon();
}
