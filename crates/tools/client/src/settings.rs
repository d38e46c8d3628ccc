//! What flags, environment and context come to, and connecting with it.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::{self, context::ContextBuilder};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use headwater::brokers;
use headwater::login::{self, Login};
use terminal::printable;

use crate::failure::{Misconfigured, complain};

/// What flags, environment and context come to.
#[derive(Clone, Debug)]
pub struct Settings {
    pub servers: Vec<ServerAddr>,
    /// Where that is, for people: without secrets.
    pub url: String,
    /// Which context was used.
    pub context: Option<String>,
    pub(crate) login: Login,
    pub(crate) is_tls_first: bool,
    pub(crate) inbox_prefix: String,
    pub timeout: Duration,
    pub(crate) domain: Option<String>,
    pub(crate) api_prefix: Option<String>,
}

impl Settings {
    /// Where NATS is, and who says so.
    pub fn place(&self) -> String {
        match &self.context {
            Some(name) => format!("{} (context {name})", self.url),
            None => self.url.clone(),
        }
    }

    /// Who we say that we are.
    pub(crate) fn who(&self) -> String {
        self.login.who()
    }

    /// Whether TLS is spoken for sure.
    fn is_tls(&self) -> bool {
        let login = &self.login;
        login.ca.is_some()
            || login.cert.is_some()
            || self.servers.iter().any(ServerAddr::tls_required)
    }

    /// Why no connection came about, with what a silent or an early server may want.
    pub(crate) fn explain(&self, why: &str) -> String {
        let silences = ["no answer", "got nothing", "timed out"];
        let may_begin_with_tls = silences.iter().any(|silence| why.contains(silence));
        if self.is_tls_first && why.contains("corrupt message") {
            format!("{why}: it does not begin with TLS, leave --tlsfirst away")
        } else if may_begin_with_tls && !self.is_tls_first {
            format!("{why}; if it begins with TLS (`handshake_first`), say --tlsfirst")
        } else {
            why.to_owned()
        }
    }

    /// The options of connections to try, one after another: a server that says nothing by itself
    /// may want to begin with TLS.
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

    /// What the subjects of the JetStream API begin with.
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

/// What is refused looks like a timeout to who asked: only this says why.
fn tell(event: &Event) {
    if let Event::ServerError(error) = event
        && !brokers::is_not_told(&error.to_string())
    {
        complain(&format!("NATS refused: {}", printable(&error.to_string())));
    }
}
