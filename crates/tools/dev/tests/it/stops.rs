//! Stopping.

use std::io::Write as _;
use std::net::TcpStream;

use broker::Broker;
use rustix::process::{Signal, kill_process};

use crate::support::{Dev, assert_all_gone, nobody_answers, pid};

#[test]
fn ctrl_c_drains_and_leaves_nobody_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let data = tempfile::tempdir().unwrap();
        let (mut dev, summary) = Dev::start(data.path(), &[]);
        dev.signal(signal);
        assert_eq!(dev.ended().code(), Some(0), "{}", dev.stderr());
        assert_all_gone(&summary);
        let stderr = dev.stderr();
        let stopped = stderr
            .lines()
            .filter(|line| line.contains("stopping; a second signal"));
        let stopped: Vec<_> = stopped
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        assert_eq!(
            stopped,
            [
                "purchases-composition",
                "purchases-inquiry",
                "purchases",
                "orders",
                "products",
                "users"
            ],
            "{stderr}"
        );
        assert!(!stderr.contains("ended with"), "{stderr}");
        assert!(!stderr.contains("killed"), "{stderr}");
    }
}

#[test]
fn ctrl_c_while_starting_stops_what_has_been_started() {
    let data = tempfile::tempdir().unwrap();
    for moment in ["building", "starting nats-server", "listening"] {
        let mut dev = Dev::spawn(data.path(), &[]);
        dev.says(moment);
        dev.signal(Signal::INT);
        assert_eq!(dev.ended().code(), Some(0), "{}", dev.stderr());
    }
    // No remaining process uses the data.
    let (dev, _) = Dev::start(data.path(), &[]);
    dev.stop();
}

#[test]
fn a_second_ctrl_c_kills_at_once() {
    let data = tempfile::tempdir().unwrap();
    let (mut dev, summary) = Dev::start(data.path(), &[]);
    // A read that waits for a position that never comes delays the stop of purchases by some
    // seconds.
    let page = summary["page"]["url"].as_str().unwrap();
    let (address, path) = page["http://".len()..].split_once('/').unwrap();
    let mut reader = TcpStream::connect(address).unwrap();
    write!(
        reader,
        "GET /{path}/purchases?after=orders:999 HTTP/1.1\r\nhost: localhost\r\n\r\n"
    )
    .unwrap();
    dev.signal(Signal::INT);
    dev.says("purchases │");
    dev.says("stopping; a second signal");
    dev.signal(Signal::INT);
    assert_eq!(dev.ended().code(), Some(1), "{}", dev.stderr());
    dev.says("killed before all had stopped");
    nobody_answers(&summary);
}

#[test]
fn a_service_that_ends_by_itself_is_named_and_stops_everything() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    kill_process(pid(&summary["services"]["orders"]), Signal::KILL).unwrap();
    let message = dev.fails();
    assert!(
        message.starts_with("error: orders ended unexpectedly (signal: 9 (SIGKILL))"),
        "{message}"
    );
    assert!(
        message.contains("created the stream"),
        "its last lines: {message}"
    );
    assert_all_gone(&summary);
}

#[test]
fn a_broker_that_ends_by_itself_is_named_and_stops_everything() {
    let data = tempfile::tempdir().unwrap();
    let (dev, summary) = Dev::start(data.path(), &[]);
    kill_process(pid(&summary["nats"]), Signal::KILL).unwrap();
    let message = dev.fails();
    assert!(
        message.starts_with("error: nats-server ended unexpectedly"),
        "{message}"
    );
    assert_all_gone(&summary);
}

#[test]
fn when_it_is_killed_itself_nobody_is_left_behind() {
    // A broker that keeps running: without it, services would end because they log the loss to a
    // pipe that no process reads.
    let broker = Broker::start_in_temp().unwrap();
    let data = tempfile::tempdir().unwrap();
    let (mut dev, summary) = Dev::start(data.path(), &["--nats-url", &broker.url()]);
    dev.signal(Signal::KILL);
    dev.ended();
    nobody_answers(&summary);
}
