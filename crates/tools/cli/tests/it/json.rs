//! `-o json` prints objects, even for errors; and terminals without colours.

use headwater_testkit::on_terminal;
use serde_json::Value;

use crate::tool::{self, Ended, PROGRAM};

/// No server listens there.
const AWAY: &str = "nats://127.0.0.1:1";

/// The error object on stdout, which includes the exit code.
fn error_of(ended: &Ended) -> Value {
    let object: Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("no object: {ended:?}"));
    assert!(object.is_object(), "{ended:?}");
    assert!(object["error"].is_string(), "{ended:?}");
    assert_eq!(
        object["exit_code"].as_i64(),
        ended.code.map(i64::from),
        "{ended:?}"
    );
    assert_eq!(ended.stderr, "", "reported only once");
    object
}

#[tokio::test]
async fn every_command_says_as_an_object_what_went_wrong() {
    let lines = [
        (&["status"][..], 4),
        (&["doctor"], 4),
        (&["projection", "list"], 4),
        (&["projection", "pause", "purchases", "--reason=x"], 4),
        (&["provision", "--dry-run"], 4),
        (&["verify"], 4),
        (&["rebuild", "purchases"], 4),
        (&["dead-letter", "list"], 4),
        (
            &["dead-letter", "discard", "1", "--service=x", "--reason=x"],
            2,
        ),
        (
            &["dead-letter", "discard", "--all", "--reason=x", "--yes"],
            4,
        ),
        (&["tail", "orders"], 4),
        (&["publish", "orders.v1.placed", "--json={}"], 4),
        (&["import"], 2),
        (&["ready", "http://127.0.0.1:1/readyz"], 1),
        (&["status", "--context=none"], 2),
    ];
    for (line, code) in lines {
        let line = [line, &["-o", "json"]].concat();
        let environment = [("NATS_URL", AWAY), ("HOME", "/nowhere")];
        let ended = tool::start(&line, &environment).end().await;
        assert_eq!(ended.code, Some(code), "{line:?}: {ended:?}");
        let object = error_of(&ended);
        let is_advised = code == 4 || line.contains(&"--context=none");
        assert!(
            !is_advised || object["what_to_do"].is_string(),
            "{line:?}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_body_that_does_not_decode_is_an_object_with_its_payload() {
    let line = [
        "decode",
        "--subject=none.v1.thing",
        "-ojson",
        "--server",
        AWAY,
    ];
    let mut tool = tool::start(&line, &[]);
    drop(tool.feed("x").await);
    let ended = tool.end().await;
    assert_eq!(ended.code, Some(4), "no broker and no schema: {ended:?}");
    error_of(&ended);
}

#[tokio::test]
async fn a_command_line_that_cannot_be_followed_is_an_object_where_json_was_asked_for() {
    let lines = [
        &["status", "--nonsense", "-o", "json"][..],
        &["-ojson", "nonsense"],
        &["--output=json", "publish"],
        &["status", "-wojson", "--every=soon"],
        &["dead-letter", "retry", "--output", "json"],
        &["-o", "json"],
    ];
    for line in lines {
        let ended = tool::start(line, &[]).end().await;
        assert_eq!(ended.code, Some(2), "{line:?}: {ended:?}");
        assert!(
            error_of(&ended)["what_to_do"].is_string(),
            "{line:?}: {ended:?}"
        );
    }
    let variable = [("HEADWATER_OUTPUT", "json")];
    let ended = tool::start(&["status", "--nonsense"], &variable)
        .end()
        .await;
    error_of(&ended);
    let ended = tool::start(&["status", "--nonsense", "-o", "text"], &variable);
    let ended = ended.end().await;
    assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{ended:?}");
    let ended = tool::start(&["status", "--help", "-ojson"], &[])
        .end()
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("Usage:"), "{ended:?}");
}

#[tokio::test]
async fn what_is_text_by_nature_is_an_object_too() {
    for (line, name) in [(&["completions", "bash"][..], "script"), (&["man"], "page")] {
        let line = [line, &["-ojson"]].concat();
        let ended = tool::start(&line, &[]).end().await;
        let object: Value = serde_json::from_str(&ended.stdout).expect("JSON");
        assert!(
            object[name].as_str().expect("a text").contains("headwater"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_terminal_that_cannot_or_shall_not_gets_no_colours() {
    let args = ["doctor", "--server", AWAY].map(str::to_owned);
    let seen = on_terminal(PROGRAM, &args, &[("TERM", "xterm")]).await;
    assert!(
        seen.contains('\x1b'),
        "the test sees what it should: {seen}"
    );
    for plain in [
        &[("TERM", "dumb")][..],
        &[],
        &[("TERM", "xterm"), ("NO_COLOR", "1")],
    ] {
        let seen = on_terminal(PROGRAM, &args, plain).await;
        assert!(
            !seen.is_empty() && !seen.contains('\x1b'),
            "{plain:?}: {seen:?}"
        );
    }
}
