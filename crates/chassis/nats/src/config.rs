//! The configuration of the connection to the broker.

use std::path::PathBuf;

use anyhow::Context as _;
use async_nats::ServerAddr;

use crate::login::{self, Login};

/// How to reach NATS.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "NATS")]
pub struct Config {
    /// Server URLs, separated by commas
    #[arg(
        long = "nats-url",
        env = "NATS_URL",
        value_name = "URL",
        default_value = "nats://127.0.0.1:4222"
    )]
    pub url: String,
    /// Credentials file (JWT and seed), read again on SIGHUP; default: systemd's credential
    /// `nats.creds`, if any
    #[arg(long = "nats-creds", env = "NATS_CREDS", value_name = "FILE")]
    pub creds: Option<PathBuf>,
    /// File with the seed of an nkey, read again on SIGHUP
    #[arg(long = "nats-nkey", env = "NATS_NKEY", value_name = "FILE")]
    pub nkey: Option<PathBuf>,
    /// User name; needs a password file
    #[arg(long = "nats-user", env = "NATS_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// File with the user's password, read again on SIGHUP; default: systemd's credential
    /// `nats.password`, if any, for the user named like the service
    #[arg(
        long = "nats-password-file",
        env = "NATS_PASSWORD_FILE",
        value_name = "FILE"
    )]
    pub password_file: Option<PathBuf>,
    /// Client certificate, read again on SIGHUP
    #[arg(long = "nats-cert", env = "NATS_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of the client certificate, read again on SIGHUP
    #[arg(long = "nats-key", env = "NATS_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Root certificate to trust, read again on SIGHUP; default: systemd's credential `nats.ca`,
    /// if any
    #[arg(long = "nats-ca", env = "NATS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Begin with TLS, for a server with `handshake_first`; detected automatically if TLS is
    /// configured
    #[arg(
        long = "nats-tls-first",
        env = "NATS_TLS_FIRST",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub tls_first: bool,
    /// Minimum number of replicas of this service's stream
    #[arg(
        long = "nats-replicas",
        env = "HEADWATER_NATS_REPLICAS",
        default_value_t = 1
    )]
    pub replicas: usize,
}

impl Config {
    /// The defaults for a server at `url`.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            creds: None,
            nkey: None,
            user: None,
            password_file: None,
            cert: None,
            key: None,
            ca: None,
            tls_first: false,
            replicas: 1,
        }
    }

    /// The servers and the login. A login in the URL counts only if no other is configured.
    pub(crate) fn servers(&self) -> anyhow::Result<(Vec<ServerAddr>, Login)> {
        let (servers, of_url) = login::servers(&self.url)?;
        let password = self.password_file.as_ref().map(|file| {
            let text = std::fs::read_to_string(file);
            let text =
                text.with_context(|| format!("read the NATS password {}", file.display()))?;
            anyhow::Ok(text.trim_end_matches(['\r', '\n']).to_owned())
        });
        let given = Login {
            creds: self.creds.clone(),
            nkey: self.nkey.clone(),
            user: self.user.clone(),
            password: password.transpose()?,
            ..Login::default()
        };
        let login = Login {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            ..if given.is_given() { given } else { of_url }
        };
        Ok((servers, login))
    }
}
