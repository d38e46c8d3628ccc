//! Connects to the receiver of a webhook, unless it is in a network that it must not be in.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use headwater_http::network;
use headwater_telemetry::causes;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use url::{Host, Url};

use crate::webhook::unusable::Unusable;

/// How long one address of the receiver may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The largest head of an answer, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// The networks that a receiver may be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Networks {
    /// The public Internet.
    Public,
    Any,
}

type Found = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Looks up the addresses of a name.
#[derive(Clone)]
pub(super) struct Resolver(pub(super) Arc<dyn Fn(String, u16) -> Found + Send + Sync>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// The system's.
    fn system() -> Self {
        Self(Arc::new(|name, port| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
        }))
    }
}

/// The receiver of a webhook.
#[derive(Clone)]
pub(super) struct Receiver {
    pub(super) url: Url,
    pub(super) networks: Networks,
    pub(super) resolver: Resolver,
    /// `None` for http.
    pub(super) tls: Option<TlsConnector>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&self.authority()).finish()
    }
}

impl Receiver {
    /// The receiver at `url`.
    pub(super) fn parse(url: &str, networks: Networks) -> Result<Self, Unusable> {
        // Not the address itself: it may hold a password.
        let unusable = |why: &str| Unusable::Url(why.to_owned());
        let parsed = Url::parse(url);
        let parsed = parsed.map_err(|error| unusable(&format!("is not a URL: {error}")))?;
        let is_https = match parsed.scheme() {
            "https" => true,
            "http" if networks == Networks::Any => false,
            _ => return Err(unusable("must begin with https://")),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(unusable("must have no user name and no password in it"));
        }
        let is_allowed = match parsed.host() {
            None => return Err(unusable("has no host")),
            Some(_) if networks == Networks::Any => true,
            Some(Host::Domain(name)) => network::is_public_name(name),
            Some(Host::Ipv4(address)) => network::is_public(address.into()),
            Some(Host::Ipv6(address)) => network::is_public(address.into()),
        };
        if !is_allowed {
            return Err(unusable(
                "is in a private network; allow it with --webhook-private-networks",
            ));
        }
        let tls = if is_https {
            Some(connector(system_roots()?)?)
        } else {
            None
        };
        Ok(Self {
            url: parsed,
            networks,
            resolver: Resolver::system(),
            tls,
        })
    }

    /// The path and query of a request.
    pub(super) fn path(&self) -> &str {
        &self.url[url::Position::BeforePath..url::Position::AfterQuery]
    }

    /// The host, and the port if it is not the usual one.
    pub(super) fn authority(&self) -> &str {
        &self.url[url::Position::BeforeHost..url::Position::AfterPort]
    }

    /// Sends `request` on a new connection. Returns the head of the answer; its body is not read.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap), String> {
        let stream = self.connect().await?;
        match &self.tls {
            None => exchange(stream, request).await,
            Some(tls) => {
                let name = self.url.host_str().unwrap_or_default();
                let name = name.trim_start_matches('[').trim_end_matches(']');
                let name = ServerName::try_from(name.to_owned()).map_err(why)?;
                let stream = tls.connect(name, stream).await;
                exchange(stream.map_err(why)?, request).await
            }
        }
    }

    /// Connects to the first address that accepts, of those that the name has now and that are
    /// allowed. Only an address that was checked is connected to: it is not looked up again.
    async fn connect(&self) -> Result<TcpStream, String> {
        let authority = self.authority();
        let mut failure = format!("{authority} has no address");
        for address in self.addresses().await.map_err(why)? {
            let ip = address.ip();
            if self.networks == Networks::Public && !network::is_public(ip) {
                failure = format!(
                    "{authority} is at {ip}, in a private network: not connected; allow it with \
                     --webhook-private-networks"
                );
                continue;
            }
            match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = format!("{authority} at {ip}: {error}"),
                Err(_) => failure = format!("{authority} at {ip} does not accept a connection"),
            }
        }
        Err(failure)
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let port = self.url.port_or_known_default().unwrap_or_default();
        match self.url.host() {
            Some(Host::Domain(name)) => (self.resolver.0)(name.to_owned(), port).await,
            Some(Host::Ipv4(address)) => Ok(vec![(address, port).into()]),
            Some(Host::Ipv6(address)) => Ok(vec![(address, port).into()]),
            None => Ok(Vec::new()),
        }
    }
}

fn why(error: impl std::error::Error + 'static) -> String {
    causes(&error)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, HeaderMap), String> {
    let connected = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake(TokioIo::new(stream))
        .await;
    let (mut sender, connection) = connected.map_err(why)?;
    let mut sending = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = &mut sending => answer,
        // The answer may have come with the end of the connection.
        _ = connection => sending.await,
    };
    let (head, _body) = answer.map_err(why)?.into_parts();
    Ok((head.status, head.headers))
}

/// The root certificates of this system.
fn system_roots() -> Result<RootCertStore, Unusable> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (known, _) = roots.add_parsable_certificates(found.certs);
    if known == 0 {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let why = format!("there are none {}", errors.join(", "));
        return Err(Unusable::Roots(why.trim_end().to_owned()));
    }
    Ok(roots)
}

/// TLS that trusts `roots`.
pub(super) fn connector(roots: RootCertStore) -> Result<TlsConnector, Unusable> {
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Unusable::Roots(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
