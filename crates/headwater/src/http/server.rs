//! The server: hyper under a header timeout and a connection cap.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, header};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::Counter;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Config;
use crate::systemd;
use crate::telemetry::Counted;

/// The pause after the system refused to accept a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long open connections may still be used after the stop: each is closed with its next
/// answer, which says so, and only then those that nothing came on. A client that sends a request
/// at the moment in which its connection is closed would see it reset.
const LINGER: Duration = Duration::from_millis(300);

/// Takes the socket that systemd listens on, or listens on the configured address.
///
/// # Errors
/// The address is taken, or not this machine's; systemd's socket is not as it should be.
pub async fn bind(config: &Config) -> anyhow::Result<TcpListener> {
    if let Some(listener) = systemd::listener()? {
        return TcpListener::from_std(listener).context("take the socket of the .socket unit");
    }
    TcpListener::bind(config.listen).await.with_context(|| {
        format!(
            "listen on {} (choose another address with --listen or HEADWATER_LISTEN)",
            config.listen
        )
    })
}

/// Asks the loop that accepts connections whether it still turns. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(mpsc::Sender<oneshot::Sender<()>>);

/// What a [`Pulse`] is answered from.
#[derive(Debug)]
pub(crate) struct Beats(mpsc::Receiver<oneshot::Sender<()>>);

impl Pulse {
    pub(crate) fn new() -> (Self, Beats) {
        let (ask, asked) = mpsc::channel(1);
        (Self(ask), Beats(asked))
    }

    /// Resolves when the loop has turned, also where all places for connections are taken; for
    /// ever pending once it has ended.
    pub(crate) async fn beat(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.send(answer).await.is_err() || answered.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
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
    let (_pulse, beats) = Pulse::new();
    serve_watched(listener, app, config, beats, stop).await
}

/// [`serve`], with somebody who asks whether it still turns.
///
/// # Errors
/// See [`serve`].
pub(crate) async fn serve_watched(
    listener: TcpListener,
    app: Router,
    config: Config,
    mut beats: Beats,
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
    let closing = Arc::new(AtomicBool::new(false));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places, &held) => accepted,
            Some(_) = connections.join_next() => continue,
            Some(beat) = beats.0.recv() => {
                // Whoever asked may have gone.
                let _ = beat.send(());
                continue;
            }
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and complete: waiting to fill a packet only adds latency.
        let _ = stream.set_nodelay(true);
        let service = closing_in_the_end(app.clone(), peer, Arc::clone(&closing));
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
    closing.store(true, Ordering::Relaxed);
    let all_closed = async { while connections.join_next().await.is_some() {} };
    // Those that are left after it are idle, or have a request under way.
    let _ = tokio::time::timeout(LINGER, all_closed).await;
    graceful.shutdown().await;
    Ok(())
}

/// `app`, told its peer's address ([`ConnectInfo`] in handlers); its answers close their connection
/// once `closing` is set.
fn closing_in_the_end(
    app: Router,
    peer: SocketAddr,
    closing: Arc<AtomicBool>,
) -> impl hyper::service::Service<
    hyper::Request<hyper::body::Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send,
> {
    let app = TowerToHyperService::new(app);
    hyper::service::service_fn(move |mut request: hyper::Request<_>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        let closing = Arc::clone(&closing);
        let answer = hyper::service::Service::call(&app, request);
        async move {
            let mut answer = answer.await?;
            if closing.load(Ordering::Relaxed) {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(answer)
        }
    })
}

type Accepted = (
    tokio::net::TcpStream,
    SocketAddr,
    tokio::sync::OwnedSemaphorePermit,
);

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
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}
