//! The output for the operator.

use headwater_testkit::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::shop::Shop;
use crate::tool::{self, Files, users};

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
    let ended = tool::import_by(&shop.url, &files, &["--in-flight=1"])
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
    let ended = tool::import_by(&shop.url, &files, &["--in-flight=1"])
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
        let ended = tool::import_by(&shop.url, &files, &[]).end().await;
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
    let ended = tool::import_by(&shop.url, &files, &[]).end().await;
    assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

#[tokio::test]
async fn the_summary_is_a_table_on_stdout() {
    let (shop, files) = (Shop::open().await, Files::small());
    let ended = tool::import_by(&shop.url, &files, &[]).end().await;

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
    let ended = tool::import_by(&shop.url, &files, &["-o", "json"])
        .end()
        .await;

    let mut summary: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    for kind in ["users", "products", "orders", "total"] {
        for measured in ["seconds", "lines_per_second"] {
            assert!(summary[kind][measured].take().is_number(), "{summary}");
        }
    }
    let row = |n: u64| json!({"read": n, "imported": n, "failed": 0, "seconds": null, "lines_per_second": null});
    let mut expected = json!({"users": row(2), "products": row(3), "orders": row(2), "total": row(7), "stopped": null, "refused": []});
    for (kind, position) in [("users", 2), ("products", 3), ("orders", 2)] {
        expected[kind]["position"] = position.into();
    }
    assert_eq!(summary, expected);
}

#[tokio::test]
async fn a_number_and_its_text_in_one_file_are_not_one_record() {
    let (shop, files) = (Shop::open().await, Files::new());
    let user = |id: &str, name: &str| {
        format!("{{\"id\": {id}, \"name\": \"{name}\", \"email\": \"{name}@b\"}}\n")
    };
    let lines = [
        user("1000", "ann"),
        user("\"7\"", "bob"),
        user("\"1000\"", "ann"),
        user("\"01000\"", "eve"),
        user("7", "dan"),
        user("1000", "ann"),
    ];
    files.write("users", lines.concat());
    let ended = tool::import_by(&shop.url, &files, &["--in-flight=1"])
        .end()
        .await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = files.anonymous(&ended.stderr);
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "users.jsonl:3: id \"1000\" (text) and id 1000 (number, line 1) map to the same id; \
             change one of them",
            "users.jsonl:5: id 7 (number) and id \"7\" (text, line 2) map to the same id; change \
             one of them",
        ]
    );
    assert_eq!(shop.records("users").len(), 3);
}

#[tokio::test]
async fn a_reason_is_said_once() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    let errors = json!([
        {"pointer": "/email", "detail": "has no at sign"},
        {"pointer": "/name", "detail": "is empty"},
    ]);
    let detail = "email: has no at sign; name: is empty";
    shop.answer_next(422, None, json!({"detail": detail, "errors": errors}));
    let ended = tool::import_by(&shop.url, &files, &[]).end().await;
    let said = format!("users.jsonl:1: 422 Unprocessable Entity: {detail}\n");
    assert_eq!(files.anonymous(&ended.stderr), said);
}

#[tokio::test]
async fn lines_with_the_same_reason_are_summed_up_and_kept_in_the_file_of_errors() {
    let (shop, files) = (Shop::open().await, Files::of_users(3));
    let order = |n| {
        format!(
            "{{\"id\": {n}, \"user_id\": {}, \"product_ids\": []}}\n",
            n + 100
        )
    };
    let orders: String = (1..=500).map(order).collect();
    files.write("orders", format!("{orders}nonsense\n"));
    let errors = files.path("errors");
    let flag = format!("--errors={}", errors.display());
    let flags = [flag.as_str(), "--in-flight=1", "-ojson"];
    let ended = tool::import_by(&shop.url, &files, &flags).end().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = files.anonymous(&ended.stderr);
    let said: Vec<&str> = said.lines().collect();
    assert_eq!(said.len(), 23, "{said:?}");
    assert_eq!(
        said[19],
        "orders.jsonl:20: 422 Unprocessable Entity: unknown user or product"
    );
    assert!(
        said[20].contains("further lines like the last one are only counted"),
        "{said:?}"
    );
    assert!(
        said[21].starts_with("orders.jsonl:501: not JSON"),
        "{said:?}"
    );
    let sum = "orders.jsonl: 480 more lines: 422 Unprocessable Entity: unknown user or product";
    assert_eq!(said[22], sum);
    let summary: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(summary["refused"][0]["lines"], 500, "{summary}");

    let kept = std::fs::read_to_string(&errors).expect("the file of errors");
    let kept: Vec<Value> = kept
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(kept.len(), 501);
    let file = files.path("orders").display().to_string();
    let reason = "422 Unprocessable Entity: unknown user or product";
    let first = json!({"file": file, "line": 1, "id": 1, "reason": reason, "status": 422});
    assert_eq!(kept[0], first);
    assert_eq!(
        (&kept[500]["id"], &kept[500]["status"]),
        (&Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn a_file_that_is_read_is_not_overwritten_with_errors() {
    let (shop, files) = (Shop::open().await, Files::of_users(1));
    let flag = format!("--errors={}", files.path("users").display());
    let ended = tool::import_by(&shop.url, &files, &[&flag]).end().await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    let kept = std::fs::read_to_string(files.path("users")).expect("still there");
    assert_eq!((kept, shop.requests("users").len()), (users(1), 0));
}

#[tokio::test]
async fn an_interrupted_import_says_what_was_done_and_how_to_go_on() {
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM")] {
        let shop = Shop::open().await;
        let mut tool = tool::import_by(&shop.url, &Files::new(), &["--users=-", "-ojson"]);
        let stdin = tool.feed(&users(2)).await;
        eventually("both users", async || {
            let there = shop.records("users").len();
            if there == 2 { Ok(()) } else { Err(there) }
        })
        .await;
        tool::signal(&tool, signal);
        let ended = tool.end().await;
        drop(stdin);
        assert_eq!(ended.code, Some(130), "{ended:?}");
        let summary: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert!(
            summary["users"]["imported"].as_u64() >= Some(1),
            "{summary}"
        );
        let stopped = summary["stopped"].as_str().expect("why");
        assert!(
            stopped.contains(name) && stopped.contains("run the same import again"),
            "{stopped}"
        );
        assert!(ended.stderr.contains(stopped), "{ended:?}");
    }
}
