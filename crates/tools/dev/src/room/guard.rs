//! Who may see and use the control room: the browser that opened the address with the token.
//!
//! Every program of this machine can connect to a loopback port, and every web page can make its
//! visitor's browser do so. Cookies do not tell ports apart, so pages of the shop's services also
//! send ours: a command needs our own `Origin`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// Sent with every answer. Referrers stay, for without them browsers send no `Origin`.
const HEADERS: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// The token of this run, and the port.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    port: u16,
    token: String,
}

impl Guard {
    /// Makes a new token.
    pub(super) fn new(port: u16) -> anyhow::Result<Self> {
        let mut random = [0; 16];
        let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
        read.context("read /dev/urandom")?;
        let mut token = String::new();
        for byte in random {
            let _infallible = write!(token, "{byte:02x}");
        }
        Ok(Self { port, token })
    }

    /// The address to open.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/?token={}", self.port, self.token)
    }

    /// The name of the cookie; it differs from that of a room on another port.
    fn cookie(&self) -> String {
        format!("headwater-room-{}", self.port)
    }

    fn is_token(&self, given: &str) -> bool {
        let bytes = given.bytes().zip(self.token.bytes());
        let differences = bytes.fold(0, |all, (given, own)| all | (given ^ own));
        given.len() == self.token.len() && differences == 0
    }

    /// The host of the request, if it is ours.
    fn host<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let host = headers.get(header::HOST)?.to_str().ok()?;
        let (name, port) = host.rsplit_once(':')?;
        let is_ours = matches!(name, "127.0.0.1" | "localhost") && port.parse() == Ok(self.port);
        is_ours.then_some(host)
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).into_iter();
        let mut pairs = cookies
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        let name = self.cookie();
        pairs.any(|(key, value)| key == name && self.is_token(value))
    }

    /// Whether this is the first visit, with the token.
    fn is_visit(&self, request: &Request) -> bool {
        let token = request
            .uri()
            .query()
            .and_then(|it| it.strip_prefix("token="));
        request.method() == Method::GET
            && request.uri().path() == "/"
            && token.is_some_and(|token| self.is_token(token))
    }

    /// Why the request is refused.
    fn refused(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        let headers = request.headers();
        let Some(host) = self.host(headers) else {
            let what = "This is not the address of the control room.\n";
            return Some((StatusCode::MISDIRECTED_REQUEST, what));
        };
        if !self.has_cookie(headers) && !self.is_visit(request) {
            let what = "Open the address that cargo dev has printed: it has a token, which is new \
                        at each start.\n";
            return Some((StatusCode::UNAUTHORIZED, what));
        }
        let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        let is_own = origin == Some(format!("http://{host}").as_bytes());
        if request.method() != Method::GET && !is_own {
            let what = "Commands come from the page of the control room only.\n";
            return Some((StatusCode::FORBIDDEN, what));
        }
        None
    }
}

/// Lets only those requests pass that [`Guard`] allows.
pub(super) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let is_visit = guard.is_visit(&request);
    let mut answer = match guard.refused(&request) {
        Some(refused) => refused.into_response(),
        None => next.run(request).await,
    };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if is_visit && answer.status() == StatusCode::OK {
        let Guard { token, .. } = &guard;
        let cookie = format!(
            "{}={token}; HttpOnly; SameSite=Strict; Path=/",
            guard.cookie()
        );
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            answer.headers_mut().insert(header::SET_COOKIE, cookie);
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn refused(method: Method, uri: &str, headers: &[(&str, &str)]) -> Option<u16> {
        let guard = Guard {
            port: 8180,
            token: "0123456789abcdef".to_owned(),
        };
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let refused = guard.refused(&request.body(Body::empty()).unwrap());
        refused.map(|(status, _)| status.as_u16())
    }

    #[test]
    fn only_the_browser_with_the_token_gets_in_and_only_our_page_commands() {
        let host = ("host", "127.0.0.1:8180");
        let cookie = ("cookie", "a=b; headwater-room-8180=0123456789abcdef");
        let own = ("origin", "http://127.0.0.1:8180");
        let get = |uri, headers: &[_]| refused(Method::GET, uri, headers);
        let post = |headers: &[_]| refused(Method::POST, "/orders/100", headers);
        assert_eq!(get("/?token=0123456789abcdef", &[host]), None);
        assert_eq!(get("/", &[host, cookie]), None);
        assert_eq!(get("/", &[("host", "localhost:8180"), cookie]), None);
        assert_eq!(post(&[host, cookie, own]), None);

        assert_eq!(get("/", &[host]), Some(401));
        assert_eq!(get("/?token=", &[host]), Some(401));
        assert_eq!(get("/?token=0123456789abcdee", &[host]), Some(401));
        assert_eq!(get("/live?token=0123456789abcdef", &[host]), Some(401));
        let other = ("cookie", "headwater-room-8181=0123456789abcdef");
        assert_eq!(get("/", &[host, other]), Some(401));
        for host in ["evil.example:8180", "127.0.0.1", "127.0.0.1:8080"] {
            assert_eq!(get("/", &[("host", host), cookie]), Some(421), "{host}");
        }
        assert_eq!(post(&[host, cookie]), Some(403));
        for origin in ["http://127.0.0.1:8080", "null", "http://localhost:8180"] {
            assert_eq!(post(&[host, cookie, ("origin", origin)]), Some(403));
        }
        assert_eq!(post(&[host, own]), Some(401));
    }
}
