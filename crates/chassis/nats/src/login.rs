//! The login at the NATS server, and the certificates.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};
use nkeys::KeyPair;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::Error;

/// A server that sends nothing for this long counts as one that does not speak first.
const GREETING_WITHIN: Duration = Duration::from_secs(1);

/// Longer than any INFO, which has the addresses of a cluster.
const GREETING_MAX: u64 = 64 * 1024;

/// At most one way to log in, and the certificates. `Debug` does not show secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Login {
    /// Credentials file (JWT and seed).
    pub creds: Option<PathBuf>,
    /// File with the seed of a user's nkey.
    pub nkey: Option<PathBuf>,
    /// User name, with [`password`](Self::password).
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Token.
    pub token: Option<String>,
    /// Root certificate to trust.
    pub ca: Option<PathBuf>,
    /// Our certificate, with [`key`](Self::key).
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("creds", &self.creds)
            .field("nkey", &self.nkey)
            .field("user", &self.user)
            .field("ca", &self.ca)
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Whether it has a way to log in, apart from certificates.
    pub fn is_given(&self) -> bool {
        self.creds.is_some() || self.nkey.is_some() || self.user.is_some() || self.token.is_some()
    }

    /// The name of the login, without secrets.
    pub fn who(&self) -> String {
        let file = |what: &str, path: &PathBuf| format!("{what} {}", path.display());
        let ways = [
            self.creds.as_ref().map(|path| file("credentials", path)),
            self.nkey.as_ref().map(|path| file("nkey", path)),
            self.user.as_ref().map(|user| format!("user {user}")),
            self.token.as_ref().map(|_| "token".to_owned()),
            self.cert.as_ref().map(|path| file("certificate", path)),
        ];
        let way = ways.into_iter().flatten().next();
        way.unwrap_or_else(|| "no user".to_owned())
    }

    /// As in the NATS CLI, a user without a password is a token, unless a token is given.
    #[must_use]
    pub fn with_lone_user_as_token(mut self) -> Self {
        if self.password.is_none() && self.token.is_none() {
            self.token = self.user.take();
        }
        self
    }

    /// `options` with this login.
    ///
    /// # Errors
    /// [`Error::Setting`]: a file cannot be read or is invalid; or two ways to log in are given.
    pub fn apply(&self, options: ConnectOptions) -> Result<ConnectOptions, Error> {
        let applied = self.try_apply(options);
        applied.map_err(|error| Error::Setting(error.into()))
    }

    fn try_apply(&self, mut options: ConnectOptions) -> anyhow::Result<ConnectOptions> {
        if let Some(Identity { proof, .. }) = self.identity()? {
            options = match proof {
                Proof::Jwt(jwt, key) => options.jwt(jwt, move |nonce| {
                    std::future::ready(key.sign(&nonce).map_err(AuthError::new))
                }),
                Proof::Nkey(key) => options.nkey(key.seed().context("read the seed")?),
                Proof::Password(user, password) => options.user_and_password(user, password),
                Proof::Token(token) => options.token(token),
            };
        }
        // The client's own error would only be that TLS failed.
        for file in [&self.ca, &self.cert, &self.key].into_iter().flatten() {
            read(file, "certificate or key")?;
        }
        if let Some(ca) = &self.ca {
            options = options.add_root_certificates(ca.clone()).require_tls(true);
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            options = options
                .add_client_certificate(cert.clone(), key.clone())
                .require_tls(true);
        }
        Ok(options)
    }

    /// Reads the login; `None` if there is none.
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply), except unreadable certificates.
    pub(crate) fn identity(&self) -> anyhow::Result<Option<Identity>> {
        self.ensure_whole()?;
        let (text, proof) = if let Some(path) = &self.creds {
            let text = read(path, "credentials")?;
            let of = || format!("read the NATS credentials {}", path.display());
            let jwt = block(&text, "NATS USER JWT").with_context(of)?.to_owned();
            let seed = block(&text, "USER NKEY SEED").with_context(of)?;
            let key = KeyPair::from_seed(seed).with_context(of)?;
            (text, Proof::Jwt(jwt, key))
        } else if let Some(path) = &self.nkey {
            let text = read(path, "nkey")?;
            let seed = text.trim();
            ensure!(
                seed.starts_with("SU") && !seed.contains(char::is_whitespace),
                "{} has no seed of a user's nkey: one line that begins with SU",
                path.display()
            );
            let of = || format!("read the NATS nkey {}", path.display());
            let key = KeyPair::from_seed(seed).with_context(of)?;
            (text, Proof::Nkey(key))
        } else if let (Some(user), Some(password)) = (&self.user, &self.password) {
            let proof = Proof::Password(user.clone(), password.clone());
            (format!("{user}\n{password}"), proof)
        } else if let Some(token) = &self.token {
            (token.clone(), Proof::Token(token.clone()))
        } else {
            return Ok(None);
        };
        Ok(Some(Identity { text, proof }))
    }

    fn ensure_whole(&self) -> anyhow::Result<()> {
        let ways = [
            (self.creds.is_some(), "a credentials file"),
            (self.nkey.is_some(), "an nkey"),
            (self.user.is_some(), "a user with a password"),
            (self.token.is_some(), "a token"),
        ];
        let given: Vec<_> = ways.iter().filter(|way| way.0).map(|way| way.1).collect();
        ensure!(
            given.len() < 2,
            "log in to NATS in only one way, not with {}",
            given.join(" and ")
        );
        ensure!(
            self.user.is_some() == self.password.is_some(),
            "a NATS user needs a password (for a service: --nats-password-file), and a password \
             needs a user"
        );
        ensure!(
            self.cert.is_some() == self.key.is_some(),
            "a client certificate for NATS needs its key, and a key needs its certificate"
        );
        Ok(())
    }
}

/// A login and its proof.
pub(crate) struct Identity {
    /// Everything that was read, to detect changes.
    pub(crate) text: String,
    proof: Proof,
}

enum Proof {
    Jwt(String, KeyPair),
    Nkey(KeyPair),
    Password(String, String),
    Token(String),
}

impl Identity {
    pub(crate) fn prove(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        let sign = |key: &KeyPair| key.sign(nonce).map_err(AuthError::new);
        match &self.proof {
            Proof::Jwt(jwt, key) => {
                auth.jwt = Some(jwt.clone());
                auth.signature = Some(sign(key)?);
            }
            Proof::Nkey(key) => {
                auth.nkey = Some(key.public_key());
                auth.signature = Some(sign(key)?);
            }
            Proof::Password(user, password) => {
                auth.username = Some(user.clone());
                auth.password = Some(password.clone());
            }
            Proof::Token(token) => auth.token = Some(token.clone()),
        }
        Ok(auth)
    }
}

/// The line below `-----BEGIN title-----`.
fn block<'t>(text: &'t str, title: &str) -> anyhow::Result<&'t str> {
    let mut lines = text.lines().map(str::trim);
    lines
        .find(|line| line.trim_matches('-') == format!("BEGIN {title}"))
        .and_then(|_| lines.next())
        .with_context(|| format!("it has no {title}"))
}

fn read(file: &Path, what: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(file)
        .with_context(|| format!("read the NATS {what} {}", file.display()))
}

/// The servers of a comma-separated list, and the login in the first URL that has one:
/// `nats://user:password@host`, `nats://token@host`.
///
/// # Errors
/// [`Error::Setting`]: an item is not the URL of a NATS server.
pub fn servers(urls: &str) -> Result<(Vec<ServerAddr>, Login), Error> {
    read_servers(urls).map_err(|error| Error::Setting(error.into()))
}

fn read_servers(urls: &str) -> anyhow::Result<(Vec<ServerAddr>, Login)> {
    let (mut servers, mut login) = (Vec::new(), Login::default());
    for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
        let server: ServerAddr = url.parse().with_context(|| {
            format!(
                "{} is not the URL of a NATS server, such as nats://host:4222",
                without_secrets(url)
            )
        })?;
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(Cow::into_owned)
                .context("decode the login in a NATS URL")
        };
        if let Some(name) = server.username().filter(|_| !login.is_given()) {
            match server.password() {
                Some(password) => {
                    login.user = Some(decoded(name)?);
                    login.password = Some(decoded(password)?);
                }
                None => login.token = Some(decoded(name)?),
            }
        }
        servers.push(server);
    }
    ensure!(
        !servers.is_empty(),
        "the NATS URL is empty; give one such as nats://host:4222"
    );
    Ok((servers, login))
}

/// Whether the first of `servers` that accepts connections speaks first, as all do except those
/// with `handshake_first`. `None` if none accepts connections, or they are closed.
pub async fn speaks_first(servers: &[ServerAddr]) -> Option<bool> {
    for server in servers {
        let Ok(addresses) = server.socket_addrs().await else {
            continue;
        };
        for address in addresses {
            let connecting = TcpStream::connect(address);
            let Ok(Ok(stream)) = timeout(GREETING_WITHIN, connecting).await else {
                continue;
            };
            let mut stream = BufReader::new(stream.take(GREETING_MAX));
            let mut greeting = Vec::new();
            let read = timeout(GREETING_WITHIN, stream.read_until(b'\n', &mut greeting)).await;
            if !greeting.is_empty() {
                leave(stream.into_inner().into_inner(), &greeting).await;
                return Some(true);
            }
            if read.is_err() {
                return Some(false);
            }
        }
    }
    None
}

/// Ends a connection to a server that has sent INFO and now waits for TLS. The server logs a cut
/// connection as an error, but not a client that speaks no TLS (from 2.14.1 on).
async fn leave(mut stream: TcpStream, info: &[u8]) {
    let info = String::from_utf8_lossy(info);
    if info.contains("\"tls_required\":true") {
        // If this fails, the server is gone and logs nothing.
        let _ = stream.write_all(b"PING\r\n").await;
    }
}

/// A list of URLs without their logins, for messages.
pub fn without_secrets(urls: &str) -> String {
    let shown = urls.split(',').map(|url| {
        let url = url.trim();
        let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
        match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://{host}"),
            None => url.to_owned(),
        }
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_have_a_user_or_a_token() {
        let (list, login) = servers("nats://one:4222, nats://eve:p%40ss@two").expect("URLs");
        assert_eq!((list.len(), list[0].port()), (2, 4222));
        assert_eq!(
            (login.user.as_deref(), login.password.as_deref()),
            (Some("eve"), Some("p@ss"))
        );
        let (_, login) = servers("s3cret@host").expect("a URL");
        assert_eq!((login.user, login.token.as_deref()), (None, Some("s3cret")));
        for bad in ["", ",", "http://host", "nats://host:nan"] {
            assert!(servers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let urls = "nats://eve:p@ss@one:4222,tok@two,nats://three";
        assert_eq!(
            without_secrets(urls),
            "nats://one:4222,nats://two,nats://three"
        );
        let login = Login {
            password: Some("hidden".to_owned()),
            token: Some("hidden".to_owned()),
            ..Login::default()
        };
        assert!(!format!("{login:?}").contains("hidden"));
    }

    #[test]
    fn one_way_to_log_in_is_enough_and_each_must_be_whole() {
        let whole = Login {
            user: Some("eve".to_owned()),
            password: Some("x".to_owned()),
            ..Login::default()
        };
        assert!(whole.apply(ConnectOptions::new()).is_ok());
        let spoilt: [fn(&mut Login); 5] = [
            |login| login.password = None,
            |login| login.token = Some("x".to_owned()),
            |login| login.cert = Some("/dev/null".into()),
            |login| login.ca = Some("/no/such/file".into()),
            |login| {
                (login.user, login.password) = (None, None);
                login.nkey = Some("/dev/null".into());
            },
        ];
        for spoil in spoilt {
            let mut login = whole.clone();
            spoil(&mut login);
            assert!(login.apply(ConnectOptions::new()).is_err(), "{login:?}");
        }
    }
}
