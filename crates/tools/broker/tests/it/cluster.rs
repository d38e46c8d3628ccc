use std::{fs, time::Duration};

use broker::{Cluster, Error, Log, Options, find};
use headwater_testkit::{eventually_blocking, is};

use crate::run::try_ask;
use crate::support::{folder, introduction, runs};

/// On a machine that is busy with other tests, an election may take long.
fn options(home: &std::path::Path) -> Options {
    Options {
        ready_within: Duration::from_mins(1),
        log: Log::File(home.join("nats.log")),
        ..Options::new(home)
    }
}

const MADE: &str = r#"{"name":"KEPT","subjects":["kept"],"storage":"file","num_replicas":3}"#;

fn ask(port: u16, subject: &str, body: &str) -> String {
    try_ask(port, subject, body).unwrap_or_default()
}

/// Publishes an event through the server on `port`, repeatedly until it is stored.
fn store(port: u16) {
    eventually_blocking("an event to be stored", || {
        let answer = ask(port, "kept", "an event");
        if answer.contains("\"seq\":") {
            Ok(())
        } else {
            Err(answer)
        }
    });
}

/// Waits until the server on `port` has at least `count` events: the answer for one may be lost.
fn has_stored(port: u16, count: u64) {
    eventually_blocking("the events to be there", || {
        let info = ask(port, "$JS.API.STREAM.INFO.KEPT", "");
        let stored = info.split("\"messages\":").nth(1);
        let stored = stored.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
        if stored >= Some(count) {
            Ok(())
        } else {
            Err(stored)
        }
    });
}

#[test]
fn three_servers_are_one_cluster_that_outlives_any_of_them() {
    let home = folder();
    let binary = find(&|_| {}).unwrap();
    let mut cluster = Cluster::start(&binary, &options(home.path())).unwrap();
    let ports: Vec<u16> = cluster.nodes().iter().map(broker::Broker::port).collect();
    assert_eq!(cluster.url().split(',').count(), 3);
    let leader = cluster.nodes()[0].leader().unwrap();
    assert!(cluster.nodes().iter().any(|node| node.name() == leader));
    let made = ask(ports[0], "$JS.API.STREAM.CREATE.KEPT", MADE);
    assert!(!made.contains("error"), "{made}");
    store(ports[1]);
    assert!(home.path().join("nats-3.log").exists());

    // Killed: the two others continue to store, and it catches up when it is back.
    cluster.nodes_mut()[0].kill().unwrap();
    assert!(cluster.nodes()[0].health().is_err());
    store(ports[1]);
    cluster.nodes_mut()[0].restart().unwrap();
    cluster.nodes()[0].wait_healthy().unwrap();
    has_stored(ports[0], 2);

    // Its data is deleted: it gets it from the others.
    cluster.nodes_mut()[1].stop().unwrap();
    fs::remove_dir_all(cluster.nodes()[1].store().join("jetstream")).unwrap();
    cluster.nodes_mut()[1].restart().unwrap();
    cluster.nodes()[1].wait_healthy().unwrap();
    cluster.nodes_mut()[0].kill().unwrap();
    store(ports[1]);
    has_stored(ports[1], 3);

    // Only one is left, and reports it.
    cluster.nodes_mut()[2].kill().unwrap();
    eventually_blocking("the last one to see that it is alone", || {
        is(cluster.nodes()[1].health().is_err(), &true)
    });
}

#[test]
fn a_server_that_retires_ends_by_itself_and_comes_back() {
    let home = folder();
    let binary = find(&|_| {}).unwrap();
    let mut cluster = Cluster::start(&binary, &options(home.path())).unwrap();
    let node = &mut cluster.nodes_mut()[2];
    let (port, before) = (node.port(), node.pid());
    let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(node.retire().unwrap().success());
    assert!(!runs(before));
    drop(client);
    assert!(matches!(node.retire(), Err(Error::NotRunning)));
    node.restart().unwrap();
    node.wait_healthy().unwrap();
    assert!(introduction(port).unwrap().contains(node.name()));
}

#[test]
fn a_dropped_cluster_is_gone() {
    let home = folder();
    let binary = find(&|_| {}).unwrap();
    let cluster = Cluster::start(&binary, &options(home.path())).unwrap();
    let pids: Vec<u32> = cluster.nodes().iter().map(broker::Broker::pid).collect();
    assert!(pids.iter().all(|pid| runs(*pid)));
    drop(cluster);
    assert!(!pids.iter().any(|pid| runs(*pid)));
}
