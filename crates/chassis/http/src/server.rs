//! The server: hyper, within limits of time, memory and connections.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse as _;
use headwater_store::fair;
use headwater_telemetry::{Counted, systemd};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::arriving::{self, Arriving};
use crate::clients::{Admission, Client, Clients};
use crate::config::Config;
use crate::error::Error;
use crate::event_stream::Streams;
use crate::extract::network;
use crate::host::Local;
use crate::stream::Stream;
use crate::turns::Turns;

/// The kernel's buffer per connection for untaken answers, in bytes. Linux doubles it for its own
/// accounting.
const SEND_BUFFER: usize = 128 * 1024;

/// The unsent bytes that the kernel takes of an answer. What it takes is not in our count of untaken
/// memory; what it has sent, and what the client has yet to confirm, is limited by the link only.
const UNSENT: u32 = 16 * 1024;

/// The longest head of a request, and what hyper reads or copies at a time per connection.
const HEAD_MAX: usize = 64 * 1024;

/// Open files reserved for databases, the broker and the log.
const FILES_RESERVED: usize = 128;

/// How often to check again for a free place for a waiting client.
const PLACE_PAUSE: Duration = Duration::from_millis(50);

/// The pause after the system refused to accept a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long open connections may still be used after the stop. Each closes with its next answer,
/// which announces that. Only then are connections closed that have no request, or half of one: a
/// client that sends a request while its connection is closed would see a reset.
const LINGER: Duration = Duration::from_millis(300);

/// How often to check, after that, for clients that delay the stop.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// The sockets that a service listens on.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub public: TcpListener,
    /// For health checks and Prometheus: answers whatever clients do to the public one.
    pub admin: TcpListener,
}

impl Listeners {
    /// Listens on free ports of the loopback address.
    ///
    /// # Errors
    /// There are none.
    pub async fn on_free_ports() -> std::io::Result<Self> {
        let free = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        Ok(Self {
            public: free().await?,
            admin: free().await?,
        })
    }
}

/// Takes the sockets passed by systemd, or listens on the configured addresses.
///
/// # Errors
/// An address is in use or not this machine's ([`Error::Listen`]), there is none for health and
/// metrics ([`Error::NoAdminPort`]), or systemd's sockets are not as expected ([`Error::Sockets`]).
pub async fn bind(config: &Config) -> Result<Listeners, Error> {
    raise_file_limit();
    let systemd::Sockets { public, admin } = systemd::listeners()?;
    let public = match public {
        Some(public) => public,
        None => listen(config.listen, "--listen or HEADWATER_LISTEN").await?,
    };
    let admin = if let Some(admin) = admin {
        admin
    } else {
        let flags = "--admin-listen or HEADWATER_ADMIN_LISTEN";
        listen(config.admin_address()?, flags).await?
    };
    Ok(Listeners { public, admin })
}

async fn listen(address: SocketAddr, flags: &'static str) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| Error::Listen {
        address,
        flags,
        error,
    })
}

/// Raises the limit of open files to the process's maximum: each connection is one, and the usual
/// limit is far lower.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "could not raise the limit of open files");
        }
    }
}

/// The configured number of connections, or fewer if the limit of open files requires it.
fn connections(config: &Config) -> usize {
    let files = getrlimit(Resource::Nofile).current;
    let files = files.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    });
    let most = files.saturating_sub(FILES_RESERVED).max(1);
    if most < config.connections {
        tracing::warn!(
            files,
            connections = most,
            "the limit of open files allows fewer connections than --http-connections: raise it \
             (LimitNOFILE= under systemd)"
        );
    }
    most.min(config.connections)
}

/// Checks that the accept loop still runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LivenessProbe(mpsc::Sender<oneshot::Sender<()>>);

/// The accept loop's end of a [`LivenessProbe`].
#[derive(Debug)]
pub struct ProbeResponder(mpsc::Receiver<oneshot::Sender<()>>);

impl LivenessProbe {
    /// A probe, and the end that answers it.
    pub fn new() -> (Self, ProbeResponder) {
        let (ask, asked) = mpsc::channel(1);
        (Self(ask), ProbeResponder(asked))
    }

    /// Resolves when the loop has run, even if all places for connections are taken. Never resolves
    /// once the loop has ended.
    pub async fn ping(&self) {
        let (answer, answered) = oneshot::channel();
        if self.0.send(answer).await.is_err() || answered.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Serves `app` until `stop`, then lets requests in progress finish. Requests that have not fully
/// arrived soon after the stop are answered with 503.
///
/// `axum::serve` has no limits: a client that connects and stays silent, or does not take its
/// answer, would keep its connection for ever.
///
/// # Errors
/// [`Error::NoAddress`].
pub async fn serve(
    listener: TcpListener,
    app: Router,
    config: Config,
    stop: CancellationToken,
) -> Result<(), Error> {
    let address = listener.local_addr().map_err(Error::NoAddress)?;
    tracing::info!(%address, "listening");
    let (_probe, responder) = LivenessProbe::new();
    let Ok(()) = serve_watched(listener, app, config, responder, Duration::MAX, stop).await;
    Ok(())
}

/// [`serve`] with a liveness probe. After the stop, clients have `drain` to take their answers.
///
/// # Errors
/// None.
pub async fn serve_watched(
    listener: TcpListener,
    app: Router,
    mut config: Config,
    mut responder: ProbeResponder,
    drain: Duration,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    config.connections = connections(&config);
    let limit_reached = metrics::counter!("headwater_http_connection_limit_reached_total");
    // Counters that alerts watch exist from the start.
    limit_reached.increment(0);
    let server = Server::new(app, &config, Streams::new(&config, stop.clone()));
    let mut connections = JoinSet::new();
    let mut waiting: Option<(TcpStream, SocketAddr)> = None;
    loop {
        if let Some((stream, peer)) = waiting.take() {
            waiting = server.admit(stream, peer, &mut connections);
        }
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok(accepted) => {
                    if connections.len() >= config.connections {
                        limit_reached.increment(1);
                    }
                    waiting = Some(accepted);
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            // The caller of the probe may be gone.
            Some(probe) = responder.0.recv() => drop(probe.send(())),
            () = tokio::time::sleep(PLACE_PAUSE), if waiting.is_some() => {}
        }
    }
    drop((listener, waiting));
    server.end(connections, drain).await;
    Ok(())
}

/// What all connections of a listener share.
struct Server {
    app: Router,
    clients: Clients,
    streams: Streams,
    turns: Turns,
    http: http1::Builder,
    patience: Duration,
    closing: Arc<AtomicBool>,
    /// Cancelled when requests that have not fully arrived are cut off.
    cut: CancellationToken,
    open: metrics::Gauge,
}

impl Server {
    fn new(app: Router, config: &Config, streams: Streams) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(config.header_timeout)
            .max_buf_size(HEAD_MAX);
        Self {
            app,
            clients: Clients::new(config),
            streams,
            turns: Turns::of_runtime(),
            http,
            patience: config.write_timeout,
            closing: Arc::new(AtomicBool::new(false)),
            cut: CancellationToken::new(),
            open: metrics::gauge!("headwater_http_connections"),
        }
    }

    /// Serves a connection if its client gets a place; returns it if it must wait for one.
    fn admit(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        connections: &mut JoinSet<()>,
    ) -> Option<(TcpStream, SocketAddr)> {
        match self.clients.admit(peer.ip()) {
            Admission::Admitted(client) => {
                let connection = self.connection(stream, peer, client);
                connections.spawn(self.turns.take(network(peer.ip()), connection));
                None
            }
            Admission::Refused => None,
            Admission::Wait => Some((stream, peer)),
        }
    }

    /// Serves a connection until it ends or is evicted.
    fn connection(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        client: Client,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.set_up(&stream);
        let local = stream.local_addr().map(|local| Local(local.ip())).ok();
        let client = Arc::new(client);
        let service = Connected {
            app: TowerToHyperService::new(self.app.clone()),
            peer,
            local,
            client: Arc::clone(&client),
            streams: self.streams.clone(),
            closing: Arc::clone(&self.closing),
            cut: self.cut.clone(),
        };
        let stream = Stream::new(stream, Arc::clone(&client), self.patience);
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let cut = self.cut.clone();
        let counted = Counted::one_more(self.open.clone());
        async move {
            let _counted = counted;
            tokio::select! {
                ended = run(connection, &client, cut) => if let Err(error) = ended {
                    tracing::debug!(%error, "connection ended");
                },
                () = client.evicted() => tracing::debug!(%peer, "connection evicted"),
            }
        }
    }

    fn set_up(&self, stream: &TcpStream) {
        // Later than our own timeout, which is counted and logged.
        let timeout = 2 * self.patience.as_millis();
        let timeout = u32::try_from(timeout).unwrap_or(u32::MAX);
        // If the system refuses one of these, the connection still works.
        // Answers are small and complete: waiting to fill a packet only adds latency.
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_send_buffer_size(stream, SEND_BUFFER);
        let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
        // Also covers data that the kernel still has after the connection is done.
        let _ = sockopt::set_tcp_user_timeout(stream, timeout);
    }

    /// Lets requests in progress finish, and closes. Does not wait the whole drain time for a
    /// client that does not take its answer.
    async fn end(self, mut connections: JoinSet<()>, drain: Duration) {
        let begun = Instant::now();
        self.closing.store(true, Ordering::Relaxed);
        let mut pause = LINGER;
        loop {
            let all_closed = async { while connections.join_next().await.is_some() {} };
            if tokio::time::timeout(pause, all_closed).await.is_ok() {
                return;
            }
            // The remaining connections are idle, or have a request in progress, or half of one.
            self.cut.cancel();
            self.clients.evict_slow(begun.elapsed() > drain / 10 * 9);
            pause = LOOK_PAUSE;
        }
    }
}

/// Serves a connection until it ends; after `cut`, only until its current request is done.
async fn run(
    mut connection: http1::Connection<TokioIo<Stream>, Connected>,
    client: &Client,
    cut: CancellationToken,
) -> hyper::Result<()> {
    tokio::select! {
        // Prefer a request that has arrived by now.
        biased;
        ended = &mut connection => return ended,
        () = cut.cancelled() => {}
    }
    if client.is_at_work() {
        Pin::new(&mut connection).graceful_shutdown();
        return connection.await;
    }
    let parts = connection.into_parts();
    arriving::refuse(parts.io.into_inner(), &parts.read_buf).await;
    Ok(())
}

/// The app for the requests of one connection.
struct Connected {
    app: TowerToHyperService<Router>,
    peer: SocketAddr,
    local: Option<Local>,
    client: Arc<Client>,
    streams: Streams,
    /// Set when answers must close their connection.
    closing: Arc<AtomicBool>,
    /// Cancelled when requests that have not fully arrived are cut off.
    cut: CancellationToken,
}

impl hyper::service::Service<hyper::Request<hyper::body::Incoming>> for Connected {
    type Response = axum::response::Response;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: hyper::Request<hyper::body::Incoming>) -> Self::Future {
        let under_way = self.client.request();
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(self.peer));
        extensions.insert(under_way.clone());
        extensions.insert(self.streams.clone());
        if let Some(local) = self.local {
            extensions.insert(local);
        }
        let closing = Arc::clone(&self.closing);
        let (request, missing) = Arriving::watch(request, &self.cut);
        let answer = fair::on_behalf_of(network(self.peer.ip()), self.app.call(request));
        Box::pin(async move {
            let mut answer = tokio::select! {
                biased;
                answer = answer => answer?,
                () = missing => arriving::problem().into_response(),
            };
            if closing.load(Ordering::Relaxed) {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            drop(under_way);
            Ok(answer)
        })
    }
}
