//! The connection's flags, and what they, the environment and a context come to.

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

/// Where NATS is when nobody says so.
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

/// The prefix of the inboxes when nobody says so: one of its own, so that no other can read what
/// is answered here.
const DEFAULT_INBOX: &str = "_INBOX_headwater";

/// The flags that say who we are; one on the command line puts aside those in the environment.
const LOGIN_FLAGS: [&str; 5] = ["creds", "nkey", "user", "password", "token"];

/// Where NATS is, and who we are there: as the NATS CLI has it.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "NATS")]
pub struct Args {
    /// Server URL, several with commas [default: the context's, or 127.0.0.1:4222]
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

    /// Context of `nats context` to take what is not said here from [default: the selected one]
    #[arg(global = true, long, env = "NATS_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,

    /// Leave contexts alone, also the selected one
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

    /// User; without a password, a token
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

    /// Its private key
    #[arg(global = true, long, env = "NATS_KEY", value_name = "FILE")]
    pub tlskey: Option<PathBuf>,

    /// Root certificate to trust
    #[arg(
        global = true,
        long,
        aliases = ["nats-ca", "ca"],
        env = "NATS_CA",
        value_name = "FILE"
    )]
    pub tlsca: Option<PathBuf>,

    /// Begin with TLS, as a server with `handshake_first` wants it; where a certificate or a tls://
    /// URL is given, that is found out
    #[arg(global = true, long, env = "NATS_TLS_FIRST", value_parser = FalseyValueParser::new())]
    pub tlsfirst: bool,

    /// Prefix of the inboxes that answers come to [default: the context's, or one of its own]
    #[arg(global = true, long, env = "NATS_INBOX_PREFIX", value_name = "PREFIX")]
    pub inbox_prefix: Option<String>,

    /// How long the server, and anybody who is asked, may take to answer: `5s`, `500ms`
    #[arg(global = true, long, env = "NATS_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,
}

impl Args {
    /// A login on the command line puts aside another one in the environment. `matches` is what
    /// this was made from.
    pub fn prefer_flags(&mut self, matches: &ArgMatches) {
        let source = |flag: &str| matches.value_source(flag);
        let by_flag = |flag: &&str| source(flag) == Some(ValueSource::CommandLine);
        if !LOGIN_FLAGS.iter().any(by_flag) {
            return;
        }
        let is_whole = source("user") == Some(ValueSource::CommandLine);
        for flag in LOGIN_FLAGS {
            // A password may stay in the environment, where nobody sees it, for a user that is not.
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

    /// What flags, environment and context come to, in this order. A login is taken as a whole
    /// from the first that has one.
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

    /// Who names a context means its server, and may have forgotten `NATS_URL`.
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
