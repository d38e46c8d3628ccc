//! Checks the host of a request: a service answers only for its own names.
//!
//! A web page can make its own name resolve to this machine, and the browser then lets the page
//! read the service's answers (DNS rebinding). The browser sends the page's name in `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

/// The local address of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Local(pub(super) IpAddr);

/// The names that a service answers for, in addition to loopback and the address of the connection.
#[derive(Debug, Clone)]
pub(super) struct Hosts(Arc<[String]>);

impl Hosts {
    pub(super) fn of(names: &[String]) -> Self {
        Self(names.iter().map(|name| plain(name)).collect())
    }

    fn check(&self, request: &Request) -> Result<(), Problem> {
        let local = request.extensions().get().map(|Local(address)| *address);
        let host = host(request.headers())?;
        // If the request target also names a host, that must match too.
        for authority in [Some(&host), request.uri().authority()]
            .into_iter()
            .flatten()
        {
            if authority.as_str().contains('@') {
                return Err(bad("must not contain a user"));
            }
            if !self.is_ours(&plain(authority.host()), local) {
                return Err(Problem::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    "misdirected-request",
                    "this service does not answer for the host of the request; an operator can add \
                     names with --public-host or HEADWATER_PUBLIC_HOST",
                ));
            }
        }
        Ok(())
    }

    fn is_ours(&self, host: &str, local: Option<IpAddr>) -> bool {
        let is_loopback = match host.parse::<IpAddr>() {
            Ok(address) => {
                let address = address.to_canonical();
                address.is_loopback() || local.is_some_and(|local| local.to_canonical() == address)
            }
            Err(_) => host == "localhost" || host.ends_with(".localhost"),
        };
        is_loopback || self.0.iter().any(|ours| ours == host)
    }
}

/// The only `Host` header of a request.
fn host(headers: &HeaderMap) -> Result<Authority, Problem> {
    let mut lines = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (lines.next(), lines.next()) else {
        return Err(bad("must be sent exactly once"));
    };
    Authority::try_from(host.as_bytes()).map_err(|_| bad("must be a host, with or without a port"))
}

fn bad(what: &str) -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "bad-host",
        format!("the header Host {what}"),
    )
}

/// A host in canonical form: lower case, without the brackets of IPv6 and the root's dot.
fn plain(host: &str) -> String {
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Checks a name for [`Config::public_host`].
pub(super) fn parse_name(text: &str) -> Result<String, String> {
    let is_name = || {
        let authority: Option<Authority> = text.parse().ok();
        authority.is_some() && !text.contains([':', '@', '*', '[', ']'])
    };
    if text.parse::<IpAddr>().is_ok() || is_name() {
        return Ok(text.to_owned());
    }
    Err("give a host name or an address, without a port".to_owned())
}

/// Refuses a request for another host, or without a clear one.
pub(super) async fn refuse_other(
    State(hosts): State<Hosts>,
    request: Request,
    next: Next,
) -> Response {
    match hosts.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}
