//! An order that is paid, one that is not, and a restart in between.

use std::time::Duration;

use example_payment_deadline::{ABOUT, PaymentReceived, SCHEMA, Settings, run};
use headwater::prelude::*;
use headwater_testkit::{broker, eventually, is};
use rusqlite::Connection;
use shop_events::OrderPlaced;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The orders and their states.
const STATES: &str = "SELECT group_concat(order_id || ' ' || state) FROM deadline";

/// How many intents are left.
const LEFT: &str = "SELECT count(*) || '' FROM headwater_intent";

async fn append(db: &Database, event: impl Event + 'static) {
    let append = db.write(move |tx| outbox::append(tx, &event));
    append.await.expect("append an event");
}

fn placed(order_id: &str) -> OrderPlaced {
    OrderPlaced {
        order_id: order_id.to_owned(),
        ..OrderPlaced::default()
    }
}

fn paid(order_id: &str) -> PaymentReceived {
    PaymentReceived {
        order_id: order_id.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_cancelled_once_unless_it_is_paid_and_a_restart_forgets_no_timer() {
    let (broker, folder) = (broker(), tempfile::tempdir().unwrap());
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(file("secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let receiver = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, nats) = (
        format!("http://{}", receiver.local_addr().unwrap()),
        broker.url(),
    );
    let settings = |name: &str| -> Settings {
        let (database, secret) = (file(name), file("secret"));
        let all = [
            ["--nats-url", &nats],
            ["--database", &database],
            ["--pay-within", "1h"],
            ["--webhook-url", &url],
            ["--webhook-secret-file", &secret],
        ];
        let all = [all.as_flattened(), &["--webhook-private-networks"]].concat();
        headwater::settings(&ABOUT, &all)
    };
    let (stop, mut tasks, mut sources) = (CancellationToken::new(), JoinSet::new(), Vec::new());
    for (name, schema) in [("orders", shop_events::SCHEMA), ("payments", SCHEMA)] {
        let about = About { name, ..ABOUT };
        let process = Process::on_free_ports(stop.clone()).await.unwrap();
        let started = Service::start(about, &[], settings(name).service, process).await;
        let mut source = started.unwrap();
        source.publish(&schema).unwrap();
        sources.push(source.db.clone());
        tasks.spawn(source.serve(OpenApiRouter::new()));
    }
    let (orders, payments) = (&sources[0], &sources[1]);
    let text = |sql: &str| -> Result<String, String> {
        let db = Connection::open(file("manager")).map_err(|error| error.to_string())?;
        db.query_row(sql, [], |row| row.get(0))
            .map_err(|error| error.to_string())
    };
    let eventually_text = async |sql: &str, wanted: &str| {
        eventually(sql, async || is(text(sql)?, &wanted.to_owned())).await;
    };

    let first = CancellationToken::new();
    let process = Process::on_free_ports(first.clone()).await.unwrap();
    let running = run(settings("manager"), process);
    let placing = async {
        eventually_text("SELECT count(*) || '' FROM headwater_effect", "1").await;
        append(orders, placed("a")).await;
        append(orders, placed("b")).await;
        eventually_text(STATES, "a open,b open").await;
        append(payments, paid("b")).await;
        eventually_text(STATES, "a open,b paid").await;
        eventually_text(LEFT, "2").await;
        first.cancel();
    };
    let (ran, ()) = tokio::join!(Box::pin(running), placing);
    ran.unwrap();

    // An hour later.
    let db = Connection::open(file("manager")).unwrap();
    let due = "UPDATE headwater_intent SET due_at = 0";
    assert_eq!(db.execute(due, []).unwrap(), 2);
    drop(db);
    let process = Process::on_free_ports(stop.clone()).await.unwrap();
    let running = run(settings("manager"), process);
    let cancelling = async {
        let (mut stream, _) = receiver.accept().await.unwrap();
        let mut request = String::new();
        while !request.ends_with(r#""type":"order.cancel"}"#) {
            request.push(char::from(stream.read_u8().await.unwrap()));
        }
        let epoch = orders.epoch();
        let key = format!("webhook-id: orders:{epoch}:1:payment-deadline\r\n");
        assert!(request.contains(&key), "{request}");
        assert!(request.contains(r#"{"order_id":"a"}"#), "{request}");
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        eventually_text(LEFT, "0").await;
        append(payments, paid("a")).await;
        append(payments, paid("c")).await;
        eventually_text(STATES, "a cancelled,b paid,c paid").await;
        let another = tokio::time::timeout(Duration::ZERO, receiver.accept()).await;
        assert!(another.is_err(), "one command");
        stop.cancel();
    };
    let (ran, ()) = tokio::join!(Box::pin(running), cancelling);
    ran.unwrap();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
}
