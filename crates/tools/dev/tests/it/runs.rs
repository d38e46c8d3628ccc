//! The running system.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use broker::Broker;
use serde_json::{Value, json};

use crate::support::{Dev, client, get, json, url};

/// The numbers of lines of `catalogue/*.jsonl`.
const PRODUCTS: usize = 24;
const USERS: usize = 6;
const ORDERS: usize = 14;

#[tokio::test]
async fn the_demo_page_shows_a_picture_of_every_product() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    let page = summary["page"]["url"].as_str().unwrap();
    let purchases = json(format!("{page}/purchases")).await;
    let html = get(page).await.text().await.unwrap();
    let pictures = html.split("<img src=\"").skip(1);
    let pictures: Vec<_> = pictures
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(!pictures.is_empty());
    assert_eq!(
        pictures.len(),
        purchases["purchases"].as_array().unwrap().len()
    );
    for picture in pictures {
        let answer = get(picture).await;
        assert_eq!(answer.headers()["content-type"], "image/svg+xml");
        assert!(answer.text().await.unwrap().starts_with("<svg"));
    }
    dev.stop();
}

#[test]
fn nothing_in_the_data_folder_is_for_other_users_whatever_the_umask_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let dev = Dev::spawn(&data, &["--no-seed"]);
    rustix::process::umask(umask);
    let dev = dev.started().0;
    let mut found = Vec::new();
    collect(&data, &mut found);
    for name in ["users.db-wal", "purchases.db.lock", "nats-server.log"] {
        let is_there = |path: &PathBuf| path.ends_with(name);
        assert!(found.iter().any(is_there), "{name}: {found:?}");
    }
    assert!(
        found
            .iter()
            .any(|path| path.starts_with(data.join("nats/jetstream")))
    );
    for path in found {
        let Ok(metadata) = path.symlink_metadata() else {
            // A temporary file, already removed.
            continue;
        };
        let mode = metadata.permissions().mode() & 0o777;
        let others = if metadata.is_symlink() {
            0
        } else {
            mode & 0o077
        };
        assert_eq!(others, 0, "{} has mode {mode:o}", path.display());
    }
    dev.stop();
}

/// Adds `path` and its contents.
fn collect(path: &Path, found: &mut Vec<PathBuf>) {
    found.push(path.to_owned());
    for entry in std::fs::read_dir(path).into_iter().flatten() {
        collect(&entry.unwrap().path(), found);
    }
}

#[tokio::test]
async fn the_other_styles_run_beside_it_and_answer_the_same() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    let page = summary["page"]["url"].as_str().unwrap();
    let path = format!("/users/{}/purchases", page.rsplit('/').next().unwrap());
    let replica = json(url(&summary, "purchases", &path)).await;
    assert_ne!(replica["purchases"], json!([]));
    for style in ["purchases-composition", "purchases-inquiry"] {
        assert_eq!(json(url(&summary, style, &path)).await, replica, "{style}");
        assert!(!data.path().join(format!("{style}.db")).exists());
    }
    dev.stop();
}

#[tokio::test]
async fn every_service_has_its_documentation() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &["--no-seed"]);
    for service in summary["services"].as_object().unwrap().keys() {
        get(url(&summary, service, "/docs")).await;
    }
    dev.stop();
}

#[tokio::test]
async fn a_second_run_doubles_nothing_and_leaves_changes_alone() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    assert_eq!(contents(&summary).await, json!([PRODUCTS, ORDERS]));
    let product = products(&summary).await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let product = format!("/products/{product}");
    let title = json!({"title": "A better title"});
    let renamed = client()
        .patch(url(&summary, "products", &product))
        .json(&title);
    renamed.send().await.unwrap().error_for_status().unwrap();
    dev.stop();

    let (dev, summary) = Dev::start(data.path(), &[]);
    assert_eq!(contents(&summary).await, json!([PRODUCTS, ORDERS]));
    let read = json(url(&summary, "products", &product)).await;
    assert_eq!(read["title"], "A better title");
    let page = summary["page"]["url"].as_str().unwrap();
    let after = format!("?after=products:{}", PRODUCTS + 1);
    let as_of = json(format!("{page}/purchases{after}")).await["as_of"].clone();
    let events = json!({"users": USERS, "products": PRODUCTS + 1, "orders": ORDERS});
    assert_eq!(as_of, events);
    dev.stop();
}

#[tokio::test]
async fn a_user_who_was_erased_stays_erased() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    let page = summary["page"].clone();
    let id = page["url"].as_str().unwrap().rsplit('/').next().unwrap();
    let user = format!("/users/{id}");
    let erased = client().delete(url(&summary, "users", &user)).send().await;
    erased.unwrap().error_for_status().unwrap();
    dev.stop();

    let (dev, summary) = Dev::start(data.path(), &[]);
    assert_ne!(summary["page"]["whose"], page["whose"]);
    let read = client().get(url(&summary, "users", &user)).send().await;
    assert_eq!(read.unwrap().status(), 404);
    dev.stop();
}

#[tokio::test]
async fn fresh_starts_from_nothing() {
    let data = tempfile::tempdir().unwrap();
    let (dev, _) = Dev::start(data.path(), &[]);
    dev.stop();
    let (dev, summary) = Dev::start(data.path(), &["--fresh", "--no-seed"]);
    assert_eq!(summary["page"], Value::Null);
    assert_eq!(products(&summary).await, [] as [Value; 0]);
    dev.stop();
}

#[tokio::test]
async fn a_broker_that_runs_already_can_be_used() {
    let broker = Broker::start_in_temp().unwrap();
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &["--nats-url", &broker.url()]);
    assert_eq!(summary["nats"], json!({"url": broker.url(), "pid": null}));
    assert_eq!(contents(&summary).await, json!([PRODUCTS, ORDERS]));
    dev.stop();
}

#[test]
fn what_there_is_to_try_works_as_printed() {
    if is_missing("curl") {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    let [order, outage, _import] = summary["to_try"].as_array().unwrap().as_slice() else {
        panic!("{summary:#}");
    };
    let purchases_after_trying = |idea: &Value| {
        let mut shell = Command::new("sh");
        let tried = shell.arg("-c").arg(idea["commands"].as_str().unwrap());
        let answer: Value = serde_json::from_slice(&tried.output().unwrap().stdout).unwrap();
        answer["purchases"].as_array().unwrap().clone()
    };
    let purchases = purchases_after_trying(order);
    let title = purchases.last().unwrap()["title"].as_str().unwrap();
    assert!(order["what"].as_str().unwrap().contains(title), "{title}");
    assert_eq!(purchases_after_trying(outage), purchases);
    dev.stop();
}

#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
fn is_missing(program: &str) -> bool {
    let mut command = Command::new(program);
    let started = command.arg("--version").stdout(Stdio::null()).status();
    if started.is_err() {
        eprintln!("skipped: there is no {program}");
    }
    started.is_err()
}

/// The numbers of products and orders.
async fn contents(summary: &Value) -> Value {
    let mut orders = 0;
    for user in include_str!("../../catalogue/users.jsonl").lines() {
        let user: Value = serde_json::from_str(user).unwrap();
        let path = format!("/orders?limit=500&user_id={}", user["id"].as_str().unwrap());
        let page = json(url(summary, "orders", &path)).await;
        orders += page["items"].as_array().unwrap().len();
    }
    json!([products(summary).await.len(), orders])
}

async fn products(summary: &Value) -> Vec<Value> {
    let page = json(url(summary, "products", "/products?limit=500")).await;
    page["items"].as_array().unwrap().clone()
}
