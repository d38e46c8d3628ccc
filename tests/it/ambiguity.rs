//! Commits with an unknown outcome: a disk that fails in the middle of a commit, and clients that
//! do not wait for the answer.

use std::process::ExitStatus;

use e2e::faults::{can_trace, dose, fail_fsync, logged, tell};
use e2e::load::{Customers, Mix};
use e2e::{Service, World, oracle};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use uuid::Uuid;

use Service::Orders;

/// A process does not continue with a database whose contents it does not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_fsync_fails_stops_the_service_and_is_one_effect_after_a_retry() {
    if !can_trace() {
        return;
    }
    let mut world = World::on_host().start().await;
    let customers = Customers::of(&world).await;
    let load = customers.begin(Mix {
        fresh: true,
        ..Mix::on(&Service::SOURCES)
    });
    for service in Service::ALL {
        world.stop(service).await;
        world
            .run_with(service, |command| fail_fsync(command, 30))
            .await;
        let ended = world.ended(service).await.exited();
        assert_eq!(ended.and_then(|status: ExitStatus| status.code()), Some(1));
        let lines = logged(&world, service, "ERROR", "database writer stopped");
        assert_eq!(lines.len(), 1, "{lines:?}");
        let why = lines[0]["error"].as_str().unwrap();
        assert!(
            why.starts_with("commit: the outcome of its writes is unknown"),
            "{why}"
        );
        world.run(service).await;
        for source in Service::SOURCES {
            customers.more(source, 4).await;
        }
    }
    load.end().await;
    assert!(
        !customers.ledger().repeats.is_empty(),
        "at least one command is repeated"
    );
    oracle::all_agree(&mut world, &customers).await;
    world.finish().await;
}

/// Sends the first `part` of a request for an order, and disconnects.
async fn leave(address: &str, key: &str, body: &str, part: fn(usize) -> usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: {address}\r\nidempotency-key: {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let sent = &body.as_bytes()[..part(body.len())];
    // The service may already have refused it.
    let _ = stream.write_all(sent).await;
}

/// A client that sends half a request has not ordered. A client that sends all of it without
/// waiting has ordered completely or not at all. Under the same key, each gets its order once.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_go_away_in_the_middle_leave_no_half_write_and_no_open_transaction() {
    let mut world = World::start().await;
    let customers = Customers::of(&world).await;
    let load = customers.begin(Mix::on(&[Orders]));
    let base = world.client(Orders).base().to_owned();
    let address = base.trim_start_matches("http://");
    let mut left = vec![];
    for _ in 0..dose(100) {
        let (key, body) = (Uuid::now_v7().to_string(), customers.new_order());
        leave(
            address,
            &Uuid::now_v7().to_string(),
            &body.to_string(),
            |all| all / 2,
        )
        .await;
        leave(address, &key, &body.to_string(), |all| all).await;
        left.push((key, body));
    }
    load.end().await;
    let head = world.heads().await.get("orders");
    let done = head - customers.ledger().count(Orders) as u64;
    tell(&format!(
        "{done} of {} clients that did not wait had ordered",
        left.len()
    ));
    for (key, body) in left {
        customers.send_as(Orders, "/orders", key, body).await;
    }
    oracle::all_agree(&mut world, &customers).await;
    world.stop(Orders).await;
    let wal = world.database(Orders).with_extension("db-wal");
    assert!(!wal.exists(), "a WAL is left after an orderly stop");
    world.run(Orders).await;
    customers.send_some(Orders, 3).await;
    world.finish().await;
}
