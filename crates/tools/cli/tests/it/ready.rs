//! `headwater ready`.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::tool::{self, Ended};

/// A service that answers `/readyz` with `status` and `text` until the set is dropped.
async fn service(status: StatusCode, text: &'static str) -> (JoinSet<()>, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("bind");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().route("/readyz", get(move || async move { (status, text) }));
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.expect("serve") });
    (server, address)
}

async fn ready(flags: &[&str], listen: &str) -> Ended {
    let flags: Vec<&str> = ["ready"].into_iter().chain(flags.iter().copied()).collect();
    let ended = tool::start(&flags, &[("HEADWATER_ADMIN_LISTEN", listen)]);
    ended.end().await
}

#[tokio::test]
async fn a_service_that_is_ready_ends_the_tool_with_0_and_no_word() {
    let (_server, address) = service(StatusCode::OK, "{}").await;
    let ended = ready(&[], &address.to_string()).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""));
}

#[tokio::test]
async fn a_service_that_is_not_ready_says_why() {
    let text = r#"{"relay":{"state":"failed","detail":"the stream is ahead"}}"#;
    let (_server, address) = service(StatusCode::SERVICE_UNAVAILABLE, text).await;
    let ended = ready(&[], &address.to_string()).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("503"), "{ended:?}");
    assert!(ended.stderr.contains("the stream is ahead"), "{ended:?}");
}

#[tokio::test]
async fn who_listens_on_all_addresses_is_asked_on_the_loopback_one() {
    let (_server, address) = service(StatusCode::OK, "{}").await;
    let ended = ready(&[], &format!("0.0.0.0:{}", address.port())).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn health_is_asked_a_thousand_ports_after_the_service() {
    let (_server, address) = service(StatusCode::OK, "{}").await;
    // The kernel assigns ports beyond 32,768.
    let listen = format!("127.0.0.1:{}", address.port() - 1000);
    let ended = tool::start(&["ready"], &[("HEADWATER_LISTEN", &listen)]);
    let ended = ended.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn anything_else_can_be_asked_by_its_url() {
    let (_server, address) = service(StatusCode::OK, "{}").await;
    let (there, not) = (
        format!("http://{address}/readyz"),
        format!("http://{address}/healthz"),
    );
    assert_eq!(ready(&[&there], "127.0.0.1:1").await.code, Some(0));
    let ended = ready(&[&not], "127.0.0.1:1").await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("404"), "{ended:?}");
}

#[tokio::test]
async fn nobody_there_and_nobody_in_time_are_not_ready() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("bind");
    let silent = listener.local_addr().expect("an address").to_string();
    let ended = ready(&["--within", "500ms"], &silent).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("timed out"), "{ended:?}");
    drop(listener);
    let ended = ready(&[], &silent).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("refused"), "{ended:?}");
}

#[tokio::test]
async fn what_is_no_address_is_a_usage_error() {
    for (flags, listen) in [(&["nonsense"][..], "127.0.0.1:1"), (&[], "localhost")] {
        let ended = ready(flags, listen).await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
    }
}
