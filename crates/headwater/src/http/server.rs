//! The server: hyper under a header timeout and a connection cap.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::Counter;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Config;
use crate::telemetry::Counted;

/// The pause after the system refused to accept a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on the configured address.
///
/// # Errors
/// The address is taken, or not this machine's.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "listen on {} (choose another address with --listen or HEADWATER_LISTEN)",
            config.listen
        )
    })
}

/// Serves `app` until `stop`, then lets the requests under way end.
///
/// `axum::serve` has no header timeout: a client that connects and stays silent would hold its
/// place for ever. This closes it after [`Config::header_timeout_s`].
///
/// # Errors
/// The listener has no address.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    config: Config,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    tracing::info!(
        address = %listener.local_addr().context("read the listener's address")?,
        "listening"
    );
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(config.header_timeout_s));
    let places = Arc::new(Semaphore::new(config.connections));
    let held = metrics::counter!("headwater_http_connections_held_total");
    let open = metrics::gauge!("headwater_http_connections");
    // Those that alerts look at are there from the start.
    held.increment(0);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places, &held) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and complete: waiting to fill a packet only adds latency.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(app.clone());
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        let counted = Counted::one_more(open.clone());
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            drop((place, counted));
        });
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

type Accepted = (tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit);

/// Waits for a place, then for a client.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    held: &Counter,
) -> std::io::Result<Accepted> {
    if places.available_permits() == 0 {
        held.increment(1);
    }
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}
