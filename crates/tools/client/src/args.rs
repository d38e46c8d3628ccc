//! The connection's flags, and the settings that flags, environment and context result in.

use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use headwater::login::{self, Login};
use terminal::output::{duration, printable};

use crate::context::{self, Context};
use crate::failure::{Misconfigured, complain};
use crate::settings::Settings;

/// The default server.
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// The default inbox prefix. It is specific to this tool, so that no other user can read its
/// answers.
const DEFAULT_INBOX: &str = "_INBOX_headwater";

/// The flags of a login. One on the command line overrides those in the environment.
const LOGIN_FLAGS: [&str; 5] = ["creds", "nkey", "user", "password", "token"];

/// The server and the login, as in the NATS CLI.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "NATS")]
pub struct Args {
    /// Server URLs, separated by commas [default: the context's, or 127.0.0.1:4222]
    #[arg(
        global = true,
        short = 's',
        long,
        visible_alias = "nats-url",
        env = "NATS_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub server: Option<String>,

    /// Context of `nats context` that supplies missing settings [default: the selected context]
    #[arg(global = true, long, env = "NATS_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,

    /// Ignore contexts, also the selected one
    #[arg(
        global = true,
        long,
        env = "HEADWATER_NO_CONTEXT",
        value_parser = FalseyValueParser::new(),
        conflicts_with = "context"
    )]
    pub no_context: bool,

    /// Credentials file (JWT and seed)
    #[arg(
        global = true,
        long,
        alias = "nats-creds",
        env = "NATS_CREDS",
        value_name = "FILE"
    )]
    pub creds: Option<PathBuf>,

    /// File with the seed of an nkey
    #[arg(global = true, long, env = "NATS_NKEY", value_name = "FILE")]
    pub nkey: Option<PathBuf>,

    /// User name; without a password, it is a token
    #[arg(global = true, long, env = "NATS_USER", value_name = "NAME")]
    pub user: Option<String>,

    /// The user's password
    #[arg(
        global = true,
        long,
        env = "NATS_PASSWORD",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub password: Option<String>,

    /// Token
    #[arg(
        global = true,
        long,
        env = "NATS_TOKEN",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub token: Option<String>,

    /// Client certificate
    #[arg(global = true, long, env = "NATS_CERT", value_name = "FILE")]
    pub tlscert: Option<PathBuf>,

    /// Private key of the client certificate
    #[arg(global = true, long, env = "NATS_KEY", value_name = "FILE")]
    pub tlskey: Option<PathBuf>,

    /// Root certificate (CA) to trust
    #[arg(
        global = true,
        long,
        aliases = ["nats-ca", "ca"],
        env = "NATS_CA",
        value_name = "FILE"
    )]
    pub tlsca: Option<PathBuf>,

    /// Start with a TLS handshake, for a server with `handshake_first` [default: detected if a
    /// certificate or a tls:// URL is given]
    #[arg(global = true, long, env = "NATS_TLS_FIRST", value_parser = FalseyValueParser::new())]
    pub tlsfirst: bool,

    /// Prefix of the inboxes for answers [default: the context's, or `_INBOX_headwater`]
    #[arg(global = true, long, env = "NATS_INBOX_PREFIX", value_name = "PREFIX")]
    pub inbox_prefix: Option<String>,

    /// Time that the server or a service may take to answer: `5s`, `500ms`
    #[arg(global = true, long, env = "NATS_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
}

impl Args {
    /// Drops the environment's login if the command line has another. `matches` are the matches
    /// that `self` was parsed from.
    pub fn prefer_flags(&mut self, matches: &ArgMatches) {
        let source = |flag: &str| matches.value_source(flag);
        let by_flag = |flag: &&str| source(flag) == Some(ValueSource::CommandLine);
        if !LOGIN_FLAGS.iter().any(by_flag) {
            return;
        }
        let is_whole = source("user") == Some(ValueSource::CommandLine);
        for flag in LOGIN_FLAGS {
            // A password in the environment belongs to a user on the command line.
            let goes_with = flag == "password" && is_whole;
            if source(flag) == Some(ValueSource::EnvVariable) && !goes_with {
                match flag {
                    "creds" => self.creds = None,
                    "nkey" => self.nkey = None,
                    "user" => self.user = None,
                    "password" => self.password = None,
                    _ => self.token = None,
                }
            }
        }
    }

    /// The settings from flags, environment and context, in this order. A login is taken as a whole
    /// from the first of them that has one.
    pub fn resolve(&self) -> Result<Settings, Misconfigured> {
        let name = context::wanted(self.context.as_deref(), self.no_context)?;
        let context = name.as_deref().map(context::load).transpose()?;
        let context = context.unwrap_or_default();
        let server = self.server.clone().filter(|url| !url.is_empty());
        self.warn_of_another_server(server.as_deref(), &context);
        let is_own_url = server.is_some();
        let urls = server.or_else(|| context.url.0.clone());
        let urls = urls.unwrap_or_else(|| DEFAULT_URL.to_owned());
        let (servers, of_url) = login::servers(&urls)?;
        let (given, of_context) = (self.login(), context.login());
        let ways = if is_own_url {
            [given, of_url, of_context]
        } else {
            [given, of_context, of_url]
        };
        let login = ways.into_iter().find(Login::is_given).unwrap_or_default();
        let (cert, key) = match (&self.tlscert, &self.tlskey) {
            (None, None) => (context.cert.0.clone(), context.key.0.clone()),
            given => (given.0.clone(), given.1.clone()),
        };
        let prefix = self.inbox_prefix.clone().or(context.inbox_prefix.0);
        Ok(Settings {
            servers,
            url: login::without_secrets(&urls),
            context: name,
            login: Login {
                ca: self.tlsca.clone().or(context.ca.0),
                cert,
                key,
                ..login
            },
            is_tls_first: self.tlsfirst || context.tls_first,
            inbox_prefix: prefix.unwrap_or_else(|| DEFAULT_INBOX.to_owned()),
            timeout: self.timeout,
            domain: context.jetstream_domain.0,
            api_prefix: context.jetstream_api_prefix.0,
        })
    }

    fn login(&self) -> Login {
        Login {
            creds: self.creds.clone(),
            nkey: self.nkey.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
            token: self.token.clone(),
            ..Login::default()
        }
        .with_lone_user_as_token()
    }

    /// Warns that `NATS_URL` or --server overrides the server of the context.
    fn warn_of_another_server(&self, server: Option<&str>, context: &Context) {
        if let (Some(name), Some(server), Some(other)) = (&self.context, server, &context.url.0)
            && server != other
        {
            complain(&format!(
                "the server is {}, of --server or NATS_URL, not {} of the context {}",
                printable(&login::without_secrets(server)),
                printable(&login::without_secrets(other)),
                printable(name)
            ));
        }
    }
}
