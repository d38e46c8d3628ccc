//! Valid and invalid command lines.

use serde_json::Value;

use crate::shop::Shop;
use crate::tool::{self, Files, users};

/// No argument.
const NOTHING: &[&str] = &[];

#[tokio::test]
async fn a_file_that_cannot_be_opened_stops_everything_before_anything_is_sent() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    let folder = files.path("users").parent().expect("folder").to_owned();
    for bad in [files.path("orders"), folder] {
        let orders = format!("--orders={}", bad.display());
        let ended = tool::import_by(&shop.url, &files, &[&orders]).end().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let expected = format!("shop-import: open {}: ", bad.display());
        assert!(ended.stderr.starts_with(&expected), "{ended:?}");
        assert_eq!(shop.requests("users").len(), 0);
    }
}

#[tokio::test]
async fn an_import_without_files_is_a_usage_error() {
    let ended = tool::start(NOTHING, &[]).end().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--users <FILE>"), "{ended:?}");
}

#[tokio::test]
async fn flags_are_checked_before_anything_is_done() {
    let flags = [
        "--in-flight=0",
        "--patience=-1",
        "--patience=soon",
        "--users-url=https://shop",
        "--users-url=shop",
    ];
    for flag in flags {
        let ended = tool::start(&["--users=-", flag], &[]).end().await;
        assert_eq!(ended.code, Some(2), "{flag}: {ended:?}");
    }
}

#[tokio::test]
async fn one_file_may_be_stdin_but_not_two() {
    let shop = Shop::open().await;
    let mut tool = tool::import_by(&shop.url, &Files::new(), &["--users=-"]);
    drop(tool.feed(&format!("{}nonsense\n", users(2))).await);
    let ended = tool.end().await;
    assert_eq!((ended.code, shop.records("users").len()), (Some(1), 2));
    assert!(ended.stderr.starts_with("stdin:3: not JSON"), "{ended:?}");

    let ended = tool::import_by(&shop.url, &Files::new(), &["--users=-", "--orders=-"])
        .end()
        .await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[tokio::test]
async fn a_service_that_is_away_ends_the_tool_although_stdin_stays_open() {
    let mut tool = tool::start(
        &[
            "--users=-",
            "--users-url=http://127.0.0.1:1",
            "--patience=0",
        ],
        &[],
    );
    let stdin = tool.feed(&users(1)).await;
    assert_eq!(tool.end().await.code, Some(4));
    drop(stdin);
}

#[tokio::test]
async fn flags_may_come_from_the_environment() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    let path = files.path("users");
    let environment = [
        ("HEADWATER_IMPORT_USERS", path.to_str().expect("UTF-8")),
        ("HEADWATER_USERS_URL", &shop.url),
        ("HEADWATER_OUTPUT", "json"),
    ];
    let ended = tool::start(NOTHING, &environment).end().await;
    assert_eq!(
        (ended.code, shop.records("users").len()),
        (Some(0), 1),
        "{ended:?}"
    );
    assert!(ended.stdout.starts_with('{'), "{ended:?}");
}

#[tokio::test]
async fn a_base_path_of_a_url_is_kept() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    let ended = tool::import_by(&format!("{}/base", shop.url), &files, &[])
        .end()
        .await;
    assert!(
        ended.stderr.contains("404 Not Found"),
        "the shop knows no /base/users: {ended:?}"
    );
}

#[tokio::test]
async fn an_error_is_an_object_where_json_was_asked_for() {
    let lines = [
        &["--users=/nowhere/users.jsonl", "-ojson"][..],
        &["--output=json"],
        &["-o", "json", "--nonsense"],
    ];
    for line in lines {
        let ended = tool::start(line, &[]).end().await;
        assert_eq!((ended.code, &*ended.stderr), (Some(2), ""), "{ended:?}");
        let object: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert!(object["error"].is_string(), "{ended:?}");
        assert_eq!(object["exit_code"], 2, "{ended:?}");
    }
}
