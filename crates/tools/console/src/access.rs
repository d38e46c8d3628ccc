//! Who may use the console: the browser that was given the address with its token.
//!
//! Every process of this machine can reach a loopback port, and so can every web page that the
//! operator's browser shows. The address that the command prints contains a random token, which the
//! browser exchanges for a cookie. A page elsewhere has neither, cannot send the cookie
//! (`SameSite=Strict`), and cannot use another host name for this address (`Host`).

use std::net::SocketAddr;

use anyhow::anyhow;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

/// The bytes of a token.
const TOKEN_BYTES: usize = 32;

/// The secrets of one run of the console.
pub(crate) struct Access {
    address: SocketAddr,
    /// In the printed address, and in the cookie.
    token: String,
    /// In every form.
    form: String,
}

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) StatusCode, pub(crate) &'static str);

impl Access {
    pub(crate) fn new(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self {
            address,
            token: random()?,
            form: random()?,
        })
    }

    /// The address for the operator's browser.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/?token={}", self.address, self.token)
    }

    /// The token that a form must send.
    pub(crate) fn form_token(&self) -> &str {
        &self.form
    }

    /// Whether a form came from one of our pages.
    pub(crate) fn is_our_form(&self, token: &str) -> bool {
        is_same(token, &self.form)
    }

    pub(crate) fn is_token(&self, token: &str) -> bool {
        is_same(token, &self.token)
    }

    /// The cookie that a correct token sets. A browser sends cookies to all ports of an address, so
    /// the name has the port.
    pub(crate) fn cookie(&self) -> HeaderValue {
        let (name, token) = (self.cookie_name(), &self.token);
        let cookie = format!("{name}={token}; HttpOnly; SameSite=Strict; Path=/");
        HeaderValue::try_from(cookie).expect("a token is visible ASCII")
    }

    fn cookie_name(&self) -> String {
        format!("headwater-console-{}", self.address.port())
    }

    /// Checks that a request names this address as its host.
    pub(crate) fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let mut lines = headers.get_all(header::HOST).iter();
        let host = match (lines.next(), lines.next()) {
            (Some(host), None) => host.to_str().ok(),
            _ => None,
        };
        let ours = [
            self.address.to_string(),
            format!("localhost:{}", self.address.port()),
        ];
        let is_ours = |name: &str| ours.iter().any(|own| own.eq_ignore_ascii_case(name));
        let target = uri.authority().map(Authority::as_str);
        if host.is_some_and(is_ours) && target.is_none_or(is_ours) {
            return Ok(());
        }
        Err(Refused(
            StatusCode::MISDIRECTED_REQUEST,
            "The console answers only at the address that `headwater console` printed.",
        ))
    }

    /// Checks the cookie.
    pub(crate) fn check_cookie(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let name = self.cookie_name();
        let lines = headers.get_all(header::COOKIE).iter();
        let mut cookies = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='));
        if cookies.any(|(its, value)| its == name && self.is_token(value)) {
            return Ok(());
        }
        Err(Refused(
            StatusCode::UNAUTHORIZED,
            "Open the address that `headwater console` printed, with its token.",
        ))
    }

    /// Checks that a request that may change something comes from one of our pages.
    pub(crate) fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Refused> {
        if matches!(*method, Method::GET | Method::HEAD) {
            return Ok(());
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let own = text(header::HOST).map(|host| format!("http://{host}"));
        let site = text(header::HeaderName::from_static("sec-fetch-site"));
        if own.is_some()
            && text(header::ORIGIN).map(str::to_owned) == own
            && site.is_none_or(|site| site == "same-origin")
        {
            return Ok(());
        }
        Err(Refused(
            StatusCode::FORBIDDEN,
            "Only the console's own pages may change something.",
        ))
    }
}

/// Checks `--listen`: other machines never reach the console.
pub(crate) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "must be an address with a port, such as 127.0.0.1:7777".to_owned())?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(
        "must be a loopback address, such as 127.0.0.1:7777; from another machine, use `ssh -L`"
            .to_owned(),
    )
}

fn random() -> anyhow::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow!("the system has no random numbers"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Compares digests: how long it takes does not depend on the secret.
fn is_same(given: &str, secret: &str) -> bool {
    Sha256::digest(given) == Sha256::digest(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::new("127.0.0.1:7777".parse().expect("an address")).expect("random numbers")
    }

    fn headers(lines: &[(header::HeaderName, &str)]) -> HeaderMap {
        let lines = lines.iter();
        let lines = lines.map(|(name, value)| (name.clone(), value.parse().expect("a value")));
        lines.collect()
    }

    #[test]
    fn only_the_host_that_was_printed_is_answered_for() {
        let check = |target: &str, host: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in host {
                headers.append(header::HOST, host.parse().expect("a value"));
            }
            let uri: Uri = target.parse().expect("a target");
            access().check_host(&uri, &headers).is_ok()
        };
        assert!(check("/", &["127.0.0.1:7777"]));
        assert!(check("/", &["LOCALHOST:7777"]));
        assert!(check("http://127.0.0.1:7777/", &["127.0.0.1:7777"]));
        for wrong in [
            "evil.test:7777",
            "127.0.0.1",
            "127.0.0.1:7778",
            "x@127.0.0.1:7777",
            "",
        ] {
            assert!(!check("/", &[wrong]), "{wrong}");
        }
        assert!(!check("/", &[]) && !check("/", &["127.0.0.1:7777", "127.0.0.1:7777"]));
        assert!(!check("http://evil.test/", &["127.0.0.1:7777"]));
    }

    #[test]
    fn a_cookie_is_needed_and_is_for_this_run_only() {
        let (one, other) = (access(), access());
        let cookie = one.cookie();
        let pair = cookie.to_str().expect("text").split(';').next();
        let with = format!("a=b; {}; c=d", pair.expect("a pair"));
        let sent = headers(&[(header::COOKIE, &with)]);
        assert!(one.check_cookie(&sent).is_ok());
        assert!(other.check_cookie(&sent).is_err());
        assert!(one.check_cookie(&HeaderMap::new()).is_err());
        let attributes = ["HttpOnly", "SameSite=Strict", "Path=/"];
        let text = cookie.to_str().expect("text");
        assert!(attributes.iter().all(|it| text.contains(it)), "{text}");
    }

    #[test]
    fn a_change_comes_from_our_own_pages() {
        let host = (header::HOST, "127.0.0.1:7777");
        let check = |lines: &[(header::HeaderName, &str)]| {
            Access::check_origin(&Method::POST, &headers(lines)).is_ok()
        };
        let site = header::HeaderName::from_static("sec-fetch-site");
        let own = (header::ORIGIN, "http://127.0.0.1:7777");
        assert!(check(&[host.clone(), own.clone()]));
        assert!(check(&[
            host.clone(),
            own.clone(),
            (site.clone(), "same-origin")
        ]));
        assert!(!check(&[host.clone(), own, (site, "cross-site")]));
        assert!(!check(std::slice::from_ref(&host)));
        assert!(!check(&[
            host.clone(),
            (header::ORIGIN, "http://127.0.0.1:7778")
        ]));
        assert!(!check(&[host, (header::ORIGIN, "null")]));
        let none = HeaderMap::new();
        assert!(Access::check_origin(&Method::GET, &none).is_ok());
    }

    #[test]
    fn the_console_listens_on_loopback_only() {
        for good in ["127.0.0.1:0", "127.9.9.9:80", "[::1]:7777"] {
            assert!(loopback(good).is_ok(), "{good}");
        }
        for bad in [
            "0.0.0.0:80",
            "[::]:80",
            "192.168.0.1:80",
            "127.0.0.1",
            "localhost:80",
        ] {
            assert!(loopback(bad).is_err(), "{bad}");
        }
    }
}
