//! Credentials and trusted certificates for the broker. The files are read at the start, and again
//! whenever the operator reloads the service.
//!
//! If a file is invalid at a reload, nothing changes: the earlier contents stay in memory and are
//! also used for later connections.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use anyhow::{Context as _, ensure};
use async_nats::rustls::RootCertStore;
use async_nats::rustls::pki_types::pem::PemObject as _;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::{Auth, AuthError, ConnectOptions, ServerAddr};
use rustix::fs::MemfdFlags;
use tokio::sync::watch;

use crate::config::Config;
use crate::error::Error;
use crate::login::{self, Identity};

/// The servers and credentials that all connections of a process share. Cheap to clone.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    config: Config,
    servers: Vec<ServerAddr>,
    /// The name of our login, without secrets.
    who: String,
    /// Whether a reload sees changed credentials. It does not if systemd passes them: it copies
    /// them only when it starts the service.
    is_renewable: bool,
    /// Our login, if there is one.
    identity: RwLock<Option<Arc<Identity>>>,
    ca: Option<ReloadableFile>,
    cert: Option<ReloadableFile>,
    key: Option<ReloadableFile>,
    /// Notified when the contents of a file have changed.
    renewed: watch::Sender<()>,
}

impl Access {
    /// Reads the files. `name` is the user if systemd passes a password and no user is configured.
    ///
    /// # Errors
    /// [`Error::Setting`]: a file cannot be read or is invalid.
    pub(crate) fn read(name: &str, config: &Config) -> Result<Self, Error> {
        let read = Self::read_from(passed_in().as_deref(), name, config);
        read.map_err(|error| Error::Setting(error.into()))
    }

    /// Checks what `read` would read at a start. A reload also checks, but systemd 252 does not let
    /// it access the passed credentials; it then skips them.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn check(name: &str, config: &Config) -> Result<(), Error> {
        let folder = passed_in().filter(|folder| folder.read_dir().is_ok());
        let read = Self::read_from(folder.as_deref(), name, config);
        read.map(drop).map_err(|error| Error::Setting(error.into()))
    }

    fn read_from(folder: Option<&Path>, name: &str, config: &Config) -> anyhow::Result<Self> {
        let config = with_credentials(name, config.clone(), folder);
        let (servers, login) = config.servers()?;
        let identity = login.identity()?;
        let files = [&config.creds, &config.nkey, &config.password_file];
        let is_own = |file: &PathBuf| folder.is_none_or(|folder| !file.starts_with(folder));
        let is_renewable = files.into_iter().flatten().any(is_own);
        let keep =
            |path: Option<PathBuf>, check| path.map(|path| ReloadableFile::read(path, check));
        Ok(Self(Arc::new(Inner {
            servers,
            who: login.who(),
            is_renewable,
            identity: RwLock::new(identity.map(Arc::new)),
            ca: keep(login.ca, check_roots).transpose()?,
            cert: keep(login.cert, check_certificates).transpose()?,
            key: keep(login.key, check_key).transpose()?,
            config,
            renewed: watch::Sender::new(()),
        })))
    }

    /// The addresses of the broker.
    pub(crate) fn servers(&self) -> Vec<ServerAddr> {
        self.0.servers.clone()
    }

    /// The name of our login, without secrets.
    pub(crate) fn who(&self) -> &str {
        &self.0.who
    }

    /// Whether changed credentials take effect without a restart.
    pub(crate) fn is_renewable(&self) -> bool {
        self.0.is_renewable
    }

    /// Options for a connection. Each attempt to connect uses what was read last.
    pub(crate) fn options(&self) -> ConnectOptions {
        let access = self.clone();
        let mut options = if self.identity().is_some() {
            ConnectOptions::with_auth_callback(move |nonce| {
                std::future::ready(access.identify(&nonce))
            })
        } else {
            ConnectOptions::new()
        };
        if let Some(ca) = &self.0.ca {
            options = options.add_root_certificates(ca.copy()).require_tls(true);
        }
        if let (Some(cert), Some(key)) = (&self.0.cert, &self.0.key) {
            options = options
                .add_client_certificate(cert.copy(), key.copy())
                .require_tls(true);
        }
        options
    }

    /// Whether the process logs in.
    pub(crate) fn logs_in(&self) -> bool {
        self.identity().is_some()
    }

    /// Whether the server is configured to begin with TLS.
    pub(crate) fn is_told_to_begin_with_tls(&self) -> bool {
        self.0.config.tls_first
    }

    /// Whether the server begins with TLS (`handshake_first`), before sending anything. `None` if
    /// no TLS is configured or no server is reachable.
    pub(crate) async fn begins_with_tls(&self) -> Option<bool> {
        let Inner {
            ca, cert, servers, ..
        } = &*self.0;
        if ca.is_none() && cert.is_none() && !servers.iter().any(ServerAddr::tls_required) {
            return None;
        }
        if login::speaks_first(servers).await? {
            return Some(false);
        }
        // A slow server is silent, too; a successful connection is proof.
        let connected = self.options().tls_first().connect(self.servers()).await;
        connected.is_ok().then_some(true)
    }

    fn identity(&self) -> Option<Arc<Identity>> {
        let identity = self.0.identity.read();
        identity.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn identify(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let identity = self.identity().expect("once there is one, there always is");
        identity.prove(nonce)
    }

    /// Reads the files again; returns whether one has changed. Then all connections are replaced.
    ///
    /// # Errors
    /// Those of [`read`](Self::read). Nothing changes then.
    pub(crate) fn renew(&self) -> anyhow::Result<bool> {
        let (_, login) = self.0.config.servers()?;
        let identity = login.identity()?;
        let files = || {
            [&self.0.ca, &self.0.cert, &self.0.key]
                .into_iter()
                .flatten()
        };
        // All files must be valid before any takes effect.
        let contents: Vec<_> = files()
            .map(ReloadableFile::checked)
            .collect::<anyhow::Result<_>>()?;
        let mut is_new = false;
        for (file, bytes) in files().zip(contents) {
            is_new |= file.replace(bytes)?;
        }
        let mut known = self
            .0
            .identity
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if let (Some(known), Some(read)) = (known.as_mut(), identity)
            && known.text != read.text
        {
            *known = Arc::new(read);
            is_new = true;
        }
        drop(known);
        if is_new {
            self.0.renewed.send_replace(());
        }
        Ok(is_new)
    }

    /// A receiver that is notified by [`renew`](Self::renew).
    pub(crate) fn renewed(&self) -> watch::Receiver<()> {
        self.0.renewed.subscribe()
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access")
    }
}

/// The folder in which systemd passes credentials, if it does.
fn passed_in() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Defaults unset files to those that systemd passes in `folder` (`LoadCredential=nats.creds`), if
/// any. Their names are those of the flags. Never rename.
fn with_credentials(name: &str, mut config: Config, folder: Option<&Path>) -> Config {
    // A file that cannot be accessed counts as passed: reading it then returns the error.
    let passed = |file: &str| {
        let path = folder?.join(file);
        path.try_exists().unwrap_or(true).then_some(path)
    };
    let is_unset = config.creds.is_none() && config.nkey.is_none() && config.user.is_none();
    if is_unset {
        config.creds = passed("nats.creds");
    }
    if config.creds.is_none() && config.nkey.is_none() && config.password_file.is_none() {
        config.password_file = passed("nats.password");
    }
    if is_unset && config.password_file.is_some() {
        config.user = Some(name.to_owned());
    }
    config.ca = config.ca.or_else(|| passed("nats.ca"));
    config.cert = config.cert.or_else(|| passed("nats.cert"));
    config.key = config.key.or_else(|| passed("nats.key"));
    config
}

/// A file that the client reads for each connection. The client gets a copy in memory of the last
/// valid contents.
struct ReloadableFile {
    path: PathBuf,
    check: Check,
    copy: Mutex<(Vec<u8>, File)>,
}

/// Checks the contents of a file.
type Check = fn(&[u8]) -> anyhow::Result<()>;

impl ReloadableFile {
    fn read(path: PathBuf, check: Check) -> anyhow::Result<Self> {
        let file = rustix::fs::memfd_create("headwater", MemfdFlags::CLOEXEC)
            .context("keep a file in memory")?;
        let kept = Self {
            path,
            check,
            copy: Mutex::new((Vec::new(), File::from(file))),
        };
        kept.replace(kept.checked()?)?;
        Ok(kept)
    }

    fn checked(&self) -> anyhow::Result<Vec<u8>> {
        let of = || format!("read the NATS certificate or key {}", self.path.display());
        let bytes = std::fs::read(&self.path).with_context(of)?;
        (self.check)(&bytes).with_context(of)?;
        Ok(bytes)
    }

    /// Replaces the copy; returns whether the contents have changed.
    fn replace(&self, bytes: Vec<u8>) -> anyhow::Result<bool> {
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        if copy.0 == bytes {
            return Ok(false);
        }
        // A connection attempt at this moment may read a partial copy; it is then retried.
        let file = &mut copy.1;
        file.rewind()
            .and_then(|()| file.write_all(&bytes))
            .and_then(|()| file.set_len(bytes.len() as u64))
            .context("keep a file in memory")?;
        copy.0 = bytes;
        Ok(true)
    }

    fn copy(&self) -> PathBuf {
        let copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        format!("/proc/self/fd/{}", copy.1.as_raw_fd()).into()
    }
}

fn check_certificates(pem: &[u8]) -> anyhow::Result<()> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.context("it is not PEM")?;
    ensure!(!certificates.is_empty(), "it has no certificate");
    Ok(())
}

fn check_roots(pem: &[u8]) -> anyhow::Result<()> {
    check_certificates(pem)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem).flatten() {
        roots.add(certificate)?;
    }
    Ok(())
}

fn check_key(pem: &[u8]) -> anyhow::Result<()> {
    PrivateKeyDer::from_pem_slice(pem).context("it has no private key")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_systemd_passes_is_of_the_user_named_like_the_service() {
        let folder = tempfile::tempdir().expect("make a folder");
        std::fs::write(folder.path().join("nats.password"), "s3cret\n").expect("write");
        let config = with_credentials("orders", Config::at("nats://a"), Some(folder.path()));
        let (_, login) = config.servers().expect("a login");
        assert_eq!(login.user.as_deref(), Some("orders"));
        assert_eq!(login.password.as_deref(), Some("s3cret"));
        let config = Config::at("nats://a");
        let access = Access::read_from(Some(folder.path()), "orders", &config).expect("a login");
        assert!(!access.is_renewable(), "it is a copy");
        let named = Config {
            user: Some("eve".to_owned()),
            ..Config::at("nats://a")
        };
        let config = with_credentials("orders", named, Some(folder.path()));
        assert_eq!(
            config.user.as_deref(),
            Some("eve"),
            "a configured user wins"
        );
    }

    #[test]
    fn a_credential_that_cannot_be_looked_at_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("no-folder");
        std::fs::write(&file, "").expect("write");
        // A path below a file cannot be accessed, even by root.
        let config = with_credentials("orders", Config::at("nats://a"), Some(&file));
        let (_, login) = config.servers().expect("a login");
        let applied = login.apply(ConnectOptions::new());
        let why = format!("{:#}", applied.expect_err("it cannot be read"));
        assert!(why.contains("no-folder/nats.creds"), "{why}");
    }
}
