//! Errors when it cannot start.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use crate::support::Dev;

#[test]
fn a_taken_port_is_named_with_its_flag_before_anything_is_started() {
    let (_taken, port) = taken_after_a_free_one();
    let (before, port) = ((port - 1).to_string(), port.to_string());
    let cases = [
        (
            ["--http-port", &port, "--nats-port", "0"],
            "purchases",
            "--http-port",
        ),
        (
            ["--http-port", &before, "--nats-port", "0"],
            "users",
            "--http-port",
        ),
        (
            ["--http-port", "0", "--nats-port", &port],
            "NATS",
            "--nats-port",
        ),
        (
            ["--http-port", "0", "--room-port", &port],
            "the control room",
            "--room-port",
        ),
    ];
    for (arguments, whose, flag) in cases {
        let data = tempfile::tempdir().unwrap();
        let dev = Dev::with(data.path(), |command| command.args(arguments));
        let message = dev.fails();
        let expected = format!("error: port {port}, for {whose}, is used by another program");
        assert!(message.starts_with(&expected), "{message}");
        assert!(message.contains(flag), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert_eq!(names(data.path()), ["headwater-dev"], "nothing was started");
    }
}

#[test]
fn an_unusable_nats_server_is_one_clear_message() {
    let data = tempfile::tempdir().unwrap();
    let free = ["--http-port", "0", "--nats-port", "0"];
    let dev = Dev::with(data.path(), |command| {
        command
            .args(free)
            .env("NATS_SERVER", "/nowhere/nats-server")
    });
    let message = dev.fails();
    assert!(message.contains("/nowhere/nats-server"), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert_eq!(names(data.path()), ["headwater-dev"], "nothing was started");
}

#[test]
fn an_empty_variable_is_an_unset_one() {
    let data = tempfile::tempdir().unwrap();
    let variables = [
        "FRESH",
        "NATS_URL",
        "NO_SEED",
        "NO_ROOM",
        "RELEASE",
        "ROOM_PORT",
        "HTTP_PORT",
        "NATS_PORT",
    ];
    let dev = Dev::with(data.path(), |command| {
        command
            .args(["--http-port", "0", "--nats-port", "0"])
            .env("NATS_SERVER", "/nowhere/nats-server")
            .envs(variables.map(|name| (format!("HEADWATER_DEV_{name}"), "")))
    });
    let message = dev.fails();
    assert!(message.contains("/nowhere/nats-server"), "{message}");
}

#[test]
fn a_broker_that_is_not_there_is_one_clear_message() {
    let (free, data) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let url = format!("nats://{}", free.local_addr().unwrap());
    drop(free);
    let message = Dev::spawn(data.path(), &["--nats-url", &url]).fails();
    assert!(
        message.starts_with(&format!("error: there is no broker at {url}")),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_folder_that_is_not_ours_is_not_deleted() {
    let data = tempfile::tempdir().unwrap();
    fs::write(data.path().join("thesis.odt"), "").unwrap();
    let message = Dev::spawn(data.path(), &["--fresh"]).fails();
    assert!(message.contains("--data"), "{message}");
    assert_eq!(names(data.path()), ["thesis.odt"]);
}

/// A taken port whose predecessor is free.
fn taken_after_a_free_one() -> (TcpListener, u16) {
    loop {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        if TcpListener::bind(("127.0.0.1", port - 1)).is_ok() {
            return (taken, port);
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}
