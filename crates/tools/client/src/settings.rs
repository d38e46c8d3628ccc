//! The resolved connection settings, and connecting with them.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use headwater::brokers;
use headwater::login::{self, Login};
use terminal::printable;

use crate::failure::{Misconfigured, complain};

/// The settings from flags, environment and context.
#[derive(Clone, Debug)]
pub struct Settings {
    pub servers: Vec<ServerAddr>,
    /// The server URLs for messages, without secrets.
    pub url: String,
    /// The name of the context used.
    pub context: Option<String>,
    pub(crate) login: Login,
    pub(crate) is_tls_first: bool,
    pub(crate) inbox_prefix: String,
    pub timeout: Duration,
    pub(crate) domain: Option<String>,
    pub(crate) api_prefix: Option<String>,
}

impl Settings {
    /// The server, and the context that names it.
    pub fn place(&self) -> String {
        match &self.context {
            Some(name) => format!("{} (context {name})", self.url),
            None => self.url.clone(),
        }
    }

    /// The user, for messages.
    pub fn who(&self) -> String {
        self.login.who()
    }

    /// Whether TLS is certain to be used.
    fn is_tls(&self) -> bool {
        let login = &self.login;
        login.ca.is_some()
            || login.cert.is_some()
            || self.servers.iter().any(ServerAddr::tls_required)
    }

    /// Why the connection failed, with advice if TLS may be the cause.
    pub(crate) fn explain(&self, why: &str) -> String {
        let silences = ["no answer", "got nothing", "timed out"];
        let may_begin_with_tls = silences.iter().any(|silence| why.contains(silence));
        if self.is_tls_first && why.contains("corrupt message") {
            format!("{why}: the server does not begin with TLS, omit --tlsfirst")
        } else if may_begin_with_tls && !self.is_tls_first {
            format!("{why}; if the server begins with TLS (`handshake_first`), add --tlsfirst")
        } else {
            why.to_owned()
        }
    }

    /// The connections to try, one after another. A server that does not send its greeting first
    /// may expect TLS first.
    pub(crate) async fn attempts(&self) -> Result<Vec<ConnectOptions>, Misconfigured> {
        let is_silent = !self.is_tls_first
            && self.is_tls()
            && login::speaks_first(&self.servers).await == Some(false);
        let first = is_silent.then(|| self.options(true)).transpose()?;
        let options = self.options(self.is_tls_first)?;
        Ok(first.into_iter().chain([options]).collect())
    }

    fn options(&self, is_tls_first: bool) -> Result<ConnectOptions, Misconfigured> {
        let mut options = ConnectOptions::new()
            .name("headwater")
            .custom_inbox_prefix(&self.inbox_prefix)
            .connection_timeout(self.timeout)
            .request_timeout(Some(self.timeout))
            .event_callback(async |event| tell(&event));
        if is_tls_first {
            options = options.tls_first();
        }
        let applied = self.login.apply(options).context("log in to NATS")?;
        Ok(applied)
    }

    /// The subject prefix of the JetStream API.
    pub(crate) fn api_prefix(&self) -> String {
        match (&self.api_prefix, &self.domain) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => "$JS.API".to_owned(),
        }
    }

    pub(crate) fn jetstream(&self, client: Client) -> jetstream::Context {
        ContextBuilder::new()
            .timeout(self.timeout)
            .ack_timeout(self.timeout)
            .api_prefix(self.api_prefix())
            .build(client)
    }
}

/// A refused request looks like a timeout to its caller: only this message names the cause.
fn tell(event: &Event) {
    if let Event::ServerError(error) = event
        && !brokers::is_not_told(&error.to_string())
    {
        complain(&format!("NATS refused: {}", printable(&error.to_string())));
    }
}
