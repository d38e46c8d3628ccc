//! What the operator is told.

use serde_json::{Value, json};

use crate::shop::Shop;
use crate::tool::{Files, Tool, users};

#[tokio::test]
async fn a_bad_line_is_reported_with_its_place_and_the_rest_is_imported() {
    let (shop, files) = (Shop::open().await, Files::new());
    let mut content = b"\xef\xbb\xbf".to_vec();
    content.extend(users(1).trim_end().as_bytes());
    content.extend(b"\r\n\n{\"id\": 2,\n[]\n{\"id\": 3, \"name\": \"x\"}\n");
    content.extend(b"{\"id\": 4, \"name\": \"\xff\"}\n");
    content.extend(vec![b'x'; 1024 * 1024 + 1]);
    content.extend(b"\n{\"id\": 9, \"name\": \"last\", \"email\": \"e\"}");
    files.write("users", content);
    let ended = Tool::import(&shop.url, &files, &["--in-flight=1"])
        .end()
        .await;

    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(
        files.anonymous(&ended.stderr).lines().collect::<Vec<_>>(),
        [
            "users.jsonl:3: not JSON: EOF while parsing a value (column 9)",
            "users.jsonl:4: not a JSON object",
            "users.jsonl:5: missing field `email` (column 22)",
            "users.jsonl:6: not UTF-8",
            "users.jsonl:7: longer than 1048576 bytes",
        ]
    );
    assert_eq!(shop.records("users").len(), 2);
}

#[tokio::test]
async fn a_refused_line_is_reported_with_status_detail_and_field_errors() {
    let (shop, files) = (Shop::open().await, Files::of_users(2));
    let errors = json!([{"pointer": "#/email", "detail": "has no at sign"}]);
    let body = json!({"title": "Invalid", "status": 422, "detail": "not a user", "errors": errors});
    shop.answer_next(422, None, body);
    let ended = Tool::import(&shop.url, &files, &["--in-flight=1"])
        .end()
        .await;

    assert_eq!(ended.code, Some(1));
    assert_eq!(
        files.anonymous(&ended.stderr),
        "users.jsonl:1: 422 Unprocessable Entity: not a user (#/email: has no at sign)\n"
    );
    assert_eq!(
        shop.requests("users").len(),
        2,
        "a refused line is not sent again"
    );
}

#[tokio::test]
async fn an_answer_that_is_no_problem_is_reported_by_its_status() {
    for status in [200, 301, 400, 404, 413] {
        let (shop, files) = (Shop::open().await, Files::of_users(1));
        shop.answer_next(status, None, Value::String("<html>".to_owned()));
        let ended = Tool::import(&shop.url, &files, &[]).end().await;
        let stderr = files.anonymous(&ended.stderr);
        assert!(
            stderr.starts_with(&format!("users.jsonl:1: {status} ")),
            "{stderr}"
        );
        assert_eq!((ended.code, shop.requests("users").len()), (Some(1), 1));
    }
}

#[tokio::test]
async fn a_service_cannot_write_to_the_terminal_what_it_likes() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    shop.answer_next(
        400,
        None,
        json!({"detail": "\u{1b}[2Jgone\nusers.jsonl:7: forged"}),
    );
    let ended = Tool::import(&shop.url, &files, &[]).end().await;
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

#[tokio::test]
async fn the_summary_is_a_table_on_stdout() {
    let (shop, files) = (Shop::open().await, Files::small());
    let ended = Tool::import(&shop.url, &files, &[]).end().await;

    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let words = |line: &str| {
        line.split_whitespace()
            .take(4)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let table: Vec<_> = ended.stdout.lines().map(words).collect();
    assert_eq!(table[0], ["read", "imported", "failed", "seconds"]);
    assert_eq!(table[1], ["users", "2", "2", "0"]);
    assert_eq!(table[4], ["total", "7", "7", "0"]);
}

#[tokio::test]
async fn the_summary_can_be_one_json_object() {
    let (shop, files) = (Shop::open().await, Files::small());
    let ended = Tool::import(&shop.url, &files, &["-o", "json"]).end().await;

    let mut summary: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    for kind in ["users", "products", "orders", "total"] {
        for measured in ["seconds", "lines_per_second"] {
            assert!(summary[kind][measured].take().is_number(), "{summary}");
        }
    }
    let row = |n: u64| json!({"read": n, "imported": n, "failed": 0, "seconds": null, "lines_per_second": null});
    let mut expected = json!({"users": row(2), "products": row(3), "orders": row(2), "total": row(7), "stopped": null});
    for (kind, position) in [("users", 2), ("products", 3), ("orders", 2)] {
        expected[kind]["position"] = position.into();
    }
    assert_eq!(summary, expected);
}
