//! What handlers extract from a request, with a [`Problem`] for each error.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use headwater_event::Positions;
use headwater_store::idempotency;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterIn};

use crate::answer::POSITION;
use crate::problem::Problem;

/// The longest `Idempotency-Key`, in characters.
const KEY_MAX: usize = 255;

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = axum::Json::from_request(request, state).await;
        Ok(Self(body.map_err(|rejection| not_json(&rejection))?.0))
    }
}

fn not_json(rejection: &JsonRejection) -> Problem {
    // serde's own text follows the first colon; axum's text before it adds nothing.
    let text = rejection.body_text();
    let serde = text
        .split_once(": ")
        .map_or(text.as_str(), |(_, what)| what);
    let (slug, detail) = match rejection {
        JsonRejection::JsonSyntaxError(_) => {
            ("malformed-json", format!("{serde}; send one JSON object"))
        }
        JsonRejection::JsonDataError(_) => (
            "invalid-field",
            format!("{serde}; see /docs for the fields"),
        ),
        JsonRejection::MissingJsonContentType(_) => (
            "unsupported-content-type",
            "send JSON, with the header Content-Type: application/json".to_owned(),
        ),
        _ if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            ("body-too-large", "send a smaller body".to_owned())
        }
        _ => ("unreadable-body", "send the request again".to_owned()),
    };
    Problem::new(rejection.status(), slug, detail)
}

/// Parameters in the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Path::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection: PathRejection| {
                Problem::bad_request(format!(
                    "the path is wrong: {}; ids are UUIDs such as 01956ec0-39d7-71b5-bb23-3671e1893844",
                    rejection.body_text()
                ))
            })
    }
}

/// Parameters behind the question mark.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        axum::extract::Query::from_request_parts(parts, state)
            .await
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection: QueryRejection| {
                Problem::bad_request(format!("the query is wrong: {}", rejection.body_text()))
            })
    }
}

/// The client's address, for limits per client: for IPv6 the network (/64), because one client owns
/// all addresses in it. Behind a proxy it is the proxy's address.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let ConnectInfo(address) = peer.expect("the server notes it for each connection");
        Ok(Self(network(address.ip())))
    }
}

/// Refuses a request that a page of another site had a browser send: for each route that changes
/// something and takes a form. Programs that are no browsers send neither of the two headers, and
/// pass.
#[derive(Debug, Clone, Copy)]
pub struct SameOrigin;

impl<S: Send + Sync> FromRequestParts<S> for SameOrigin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        if is_own(&parts.headers) {
            return Ok(Self);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "cross-site-request",
            "the form was sent from a page of another site; open the page here and send it again",
        ))
    }
}

/// Whether no other site's page caused the request. `Sec-Fetch-Site` says so; browsers that do not
/// send it send the origin with every form.
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), _, _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin), Some(host)) => {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
        }
        (None, Some(_), None) => false,
        (None, None, _) => true,
    }
}

/// The part of an address that identifies one client: a full IPv4 address, the /64 of an IPv6
/// address.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The positions that the answer must include: `?after=orders:4711,users:12`, or the header
/// `Headwater-Position` as a write returned it, on one or more lines. All of them count.
#[derive(Debug, Clone, Default)]
pub struct After(pub Positions);

/// As `params` of a route, it documents both.
impl IntoParams for After {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let (query, header) = (
            AfterQuery::into_params(|| None),
            AfterHeader::into_params(|| None),
        );
        query.into_iter().chain(header).collect()
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AfterQuery {
    /// Positions that the answer must include, as writes returned them in `Headwater-Position`.
    #[param(
        pattern = r"^[^:,\s]+:[0-9]{1,19}(,[^:,\s]+:[0-9]{1,19})*$",
        example = "orders:4711,users:12"
    )]
    after: Option<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the header")]
struct AfterHeader {
    /// The same as `after`, as a header; several lines count as one list.
    #[param(
        rename = "Headwater-Position",
        pattern = "^[!-+.-9;-~]+:[0-9]{1,19}(,[!-+.-9;-~]+:[0-9]{1,19})*$",
        example = "orders:4711,users:12"
    )]
    position: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for After {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(query) = Query::<AfterQuery>::from_request_parts(parts, state).await?;
        let header = parts.headers.get_all(POSITION).iter().map(text);
        let query = query.after.as_deref().map(Ok);
        let asked: Vec<&str> = query.into_iter().chain(header).collect::<Result<_, _>>()?;
        if asked.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self(asked.join(",").parse()?))
    }
}

fn text(value: &HeaderValue) -> Result<&str, Problem> {
    value
        .to_str()
        .map_err(|_| Problem::bad_request("a header contains something other than visible ASCII"))
}

/// The header `Idempotency-Key`, if the client sent one.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(Option<String>);

/// As `params` of a route, it documents the header.
impl IntoParams for IdempotencyKey {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        KeyHeader::into_params(|| None)
    }
}

#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the header")]
struct KeyHeader {
    /// Makes a retry safe: any text of 1 to 255 visible ASCII characters, such as a UUID.
    #[param(
        rename = "Idempotency-Key",
        min_length = 1,
        max_length = 255,
        pattern = "^[!-~]([ -~]*[!-~])?$"
    )]
    key: Option<String>,
}

impl IdempotencyKey {
    /// The key for one kind of command.
    pub fn scoped(self, scope: &'static str) -> idempotency::Key {
        idempotency::Key {
            scope,
            text: self.0,
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let mut lines = parts.headers.get_all("idempotency-key").iter();
        let Some(value) = lines.next() else {
            return Ok(Self(None));
        };
        if lines.next().is_some() {
            return Err(Problem::bad_request(
                "there are several Idempotency-Key headers; send one",
            ));
        }
        let key = text(value)?.trim();
        if key.is_empty() || key.len() > KEY_MAX {
            return Err(Problem::bad_request(format!(
                "Idempotency-Key must have 1 to {KEY_MAX} characters, such as a UUID"
            )));
        }
        Ok(Self(Some(key.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_of_another_site_is_recognized() {
        let is_own = |headers: &[(&'static str, &'static str)]| {
            let headers = headers.iter().map(|(name, value)| {
                let name = axum::http::HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            is_own(&headers.collect())
        };
        let here = ("host", "shop.example:8080");
        for own in [
            &[here][..],
            &[here, ("sec-fetch-site", "same-origin")],
            &[here, ("sec-fetch-site", "none")],
            &[here, ("origin", "https://Shop.example:8080")],
        ] {
            assert!(is_own(own), "{own:?}");
        }
        for forged in [
            &[here, ("sec-fetch-site", "cross-site")][..],
            &[here, ("sec-fetch-site", "same-site")],
            &[
                here,
                ("sec-fetch-site", "cross-site"),
                ("origin", "http://shop.example:8080"),
            ],
            &[here, ("origin", "http://evil.example")],
            &[here, ("origin", "http://shop.example")],
            &[here, ("origin", "null")],
            &[("origin", "http://shop.example:8080")],
        ] {
            assert!(!is_own(forged), "{forged:?}");
        }
    }

    #[test]
    fn a_peer_is_an_ipv4_address_or_an_ipv6_network() {
        for (address, peer) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(network(address).to_string(), peer, "{address}");
        }
    }
}
