//! Web pages for one person on this machine: `headwater console`, and the control room of
//! `cargo dev`.
//!
//! Every process of this machine can reach a loopback port, and so can every web page that a browser
//! shows. So the address contains a random token, which the browser exchanges for a cookie. A page
//! elsewhere has neither: it cannot send the cookie (`SameSite=Strict`), and cannot use another host
//! name for this address (`Host`). Cookies do not tell ports apart, so pages on other ports of the
//! same address send it too: a request that changes something also needs this page's own `Origin`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

/// The bytes of a token.
const TOKEN_BYTES: usize = 32;

/// Sent with every answer. A page may load only what its program serves. Referrers stay on the
/// page's own requests, because without them browsers send no `Origin` with a form.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::CACHE_CONTROL, "no-store"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Who may see and use the pages of one run of a program.
#[derive(Debug)]
pub struct Access {
    /// Begins the name of the cookie.
    name: &'static str,
    /// The command that prints the address.
    command: &'static str,
    address: SocketAddr,
    token: String,
}

/// The system has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random numbers")]
pub struct NoRandomNumbers;

/// A refusal: its status, and what the visitor can do.
type Refusal = (StatusCode, String);

impl Access {
    /// A new token for the pages at `address`, which `command` prints. `name` distinguishes the
    /// cookies of programs.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(
        name: &'static str,
        command: &'static str,
        address: SocketAddr,
    ) -> Result<Self, NoRandomNumbers> {
        let mut bytes = [0; TOKEN_BYTES];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| NoRandomNumbers)?;
        Ok(Self {
            name,
            command,
            address,
            token: URL_SAFE_NO_PAD.encode(bytes),
        })
    }

    /// The address to open, with the token.
    pub fn url(&self) -> String {
        format!("http://{}/?token={}", self.address, self.token)
    }

    /// `routes` for those who have the address. All others get 421 (another host name), 401 (no
    /// token) or 403 (a change that does not come from these pages).
    pub fn guard(self, routes: Router) -> Router {
        routes.layer(from_fn_with_state(Arc::new(self), check))
    }

    /// Compares digests: how long it takes does not depend on the token.
    fn is_token(&self, given: &str) -> bool {
        Sha256::digest(given) == Sha256::digest(&self.token)
    }

    /// A browser sends cookies to all ports of an address, so the name has the port.
    fn cookie_name(&self) -> String {
        format!("{}-{}", self.name, self.address.port())
    }

    fn cookie(&self) -> String {
        let (name, token) = (self.cookie_name(), &self.token);
        format!("{name}={token}; HttpOnly; SameSite=Strict; Path=/")
    }

    /// `None` if the request may pass.
    fn refuse_or_welcome(&self, request: &Request) -> Option<Response> {
        let (uri, headers) = (request.uri(), request.headers());
        if let Err(refusal) = self.check_host(uri, headers) {
            return Some(refusal.into_response());
        }
        if request.method() == Method::GET
            && let Some((token, to)) = without_token(uri)
        {
            if !self.is_token(&token) {
                return Some(self.unknown().into_response());
            }
            let cookie = [(header::SET_COOKIE, self.cookie())];
            return Some((cookie, Redirect::to(&to)).into_response());
        }
        let checked = self.check_cookie(headers);
        let checked = checked.and_then(|()| self.check_origin(request.method(), headers));
        checked.err().map(IntoResponse::into_response)
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut lines = headers.get_all(header::HOST).iter();
        let host = match (lines.next(), lines.next()) {
            (Some(host), None) => host.to_str().ok(),
            _ => None,
        };
        let ours = [
            self.address.to_string(),
            format!("localhost:{}", self.address.port()),
        ];
        // Browsers leave out the port 80.
        let is_ours = |name: &str| {
            let mut ours = ours.iter();
            ours.any(|own| {
                let short = own.strip_suffix(":80").unwrap_or(own);
                own.eq_ignore_ascii_case(name) || short.eq_ignore_ascii_case(name)
            })
        };
        let target = uri.authority().map(Authority::as_str);
        if host.is_some_and(is_ours) && target.is_none_or(is_ours) {
            return Ok(());
        }
        let what = format!(
            "The pages are at the address that `{}` printed.\n",
            self.command
        );
        Err((StatusCode::MISDIRECTED_REQUEST, what))
    }

    fn check_cookie(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let name = self.cookie_name();
        let lines = headers.get_all(header::COOKIE).iter();
        let mut cookies = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='));
        if cookies.any(|(its, value)| its == name && self.is_token(value)) {
            return Ok(());
        }
        Err(self.unknown())
    }

    fn unknown(&self) -> Refusal {
        let what = format!(
            "Open the address that `{}` printed: it has a token, which is new at each start.\n",
            self.command
        );
        (StatusCode::UNAUTHORIZED, what)
    }

    /// What may change something comes from one of these pages, and nothing from a page elsewhere.
    fn check_origin(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let site = text(HeaderName::from_static("sec-fetch-site"));
        // An image on a page of another port, for example, would be logged as this visitor's.
        let is_other = matches!(site, Some("same-site" | "cross-site"));
        if matches!(*method, Method::GET | Method::HEAD) && !is_other {
            return Ok(());
        }
        let own = text(header::HOST).map(|host| format!("http://{host}"));
        if own.is_some()
            && text(header::ORIGIN).map(str::to_owned) == own
            && site.is_none_or(|site| site == "same-origin")
        {
            return Ok(());
        }
        let what = format!(
            "Only the pages of `{}` may change something.\n",
            self.command
        );
        Err((StatusCode::FORBIDDEN, what))
    }
}

async fn check(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let mut answer = match access.refuse_or_welcome(&request) {
        Some(answer) => answer,
        None => next.run(request).await,
    };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// The token in an address, and the address without it.
fn without_token(uri: &Uri) -> Option<(String, String)> {
    let (tokens, rest): (Vec<_>, Vec<_>) = uri
        .query()?
        .split('&')
        .partition(|pair| pair.starts_with("token="));
    let token = tokens.first()?.strip_prefix("token=")?.to_owned();
    let to = match rest.as_slice() {
        [] => uri.path().to_owned(),
        rest => format!("{}?{}", uri.path(), rest.join("&")),
    };
    Some((token, to))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const HOST: (&str, &str) = ("host", "127.0.0.1:7777");
    const OWN: (&str, &str) = ("origin", "http://127.0.0.1:7777");

    fn access() -> Access {
        let address = "127.0.0.1:7777".parse().expect("an address");
        Access::new("page", "the program", address).expect("random numbers")
    }

    fn answer(
        access: &Access,
        method: Method,
        to: &str,
        headers: &[(&str, &str)],
    ) -> Option<Response> {
        let mut request = Request::builder().method(method).uri(to);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        access.refuse_or_welcome(&request.body(Body::empty()).expect("a request"))
    }

    fn status(access: &Access, method: Method, to: &str, headers: &[(&str, &str)]) -> u16 {
        answer(access, method, to, headers).map_or(200, |answer| answer.status().as_u16())
    }

    #[test]
    fn the_token_becomes_a_cookie_of_this_run() {
        let (one, other) = (access(), access());
        let to = format!("/events?token={}&source=orders", one.token);
        let welcome = answer(&one, Method::GET, &to, &[HOST]).expect("an answer");
        assert_eq!(welcome.status(), StatusCode::SEE_OTHER);
        assert_eq!(welcome.headers()["location"], "/events?source=orders");
        let cookie = welcome.headers()["set-cookie"].to_str().expect("text");
        for attribute in ["HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        let (pair, _) = cookie.split_once(';').expect("attributes");
        let sent = ("cookie", &*format!("a=b; {pair}; c=d"));
        assert_eq!(status(&one, Method::GET, "/", &[HOST, sent]), 200);
        assert_eq!(status(&other, Method::GET, "/", &[HOST, sent]), 401);
        assert_eq!(status(&one, Method::GET, "/", &[HOST]), 401);
        assert_eq!(status(&other, Method::GET, &to, &[HOST, sent]), 401);
        assert_eq!(status(&one, Method::POST, &to, &[HOST, OWN]), 401);
    }

    #[test]
    fn only_the_host_that_was_printed_is_answered_for() {
        let access = access();
        let cookie = access.cookie();
        let cookie = ("cookie", cookie.split(';').next().expect("a pair"));
        let get = |to, headers: &[_]| status(&access, Method::GET, to, headers);
        assert_eq!(get("/", &[("host", "LOCALHOST:7777"), cookie]), 200);
        assert_eq!(get("http://127.0.0.1:7777/", &[HOST, cookie]), 200);
        for host in [
            "evil.test:7777",
            "127.0.0.1",
            "127.0.0.1:7778",
            "x@127.0.0.1:7777",
            "",
        ] {
            assert_eq!(get("/", &[("host", host), cookie]), 421, "{host}");
        }
        assert_eq!(get("/", &[cookie]), 421);
        assert_eq!(get("/", &[HOST, HOST, cookie]), 421);
        assert_eq!(get("http://evil.test/", &[HOST, cookie]), 421);
    }

    #[test]
    fn a_change_comes_from_the_pages_themselves() {
        let access = access();
        let cookie = access.cookie();
        let cookie = ("cookie", cookie.split(';').next().expect("a pair"));
        let post = |headers: &[_]| status(&access, Method::POST, "/do", headers);
        let site = "sec-fetch-site";
        assert_eq!(post(&[HOST, cookie, OWN]), 200);
        assert_eq!(post(&[HOST, cookie, OWN, (site, "same-origin")]), 200);
        assert_eq!(post(&[HOST, cookie, OWN, (site, "same-site")]), 403);
        assert_eq!(post(&[HOST, cookie]), 403);
        let get = |headers: &[_]| status(&access, Method::GET, "/", headers);
        assert_eq!(get(&[HOST, cookie, (site, "none")]), 200);
        assert_eq!(get(&[HOST, cookie, (site, "same-site")]), 403);
        for origin in ["http://127.0.0.1:7778", "http://localhost:7777", "null"] {
            assert_eq!(post(&[HOST, cookie, ("origin", origin)]), 403, "{origin}");
        }
        assert_eq!(post(&[HOST, OWN]), 401);
    }
}
