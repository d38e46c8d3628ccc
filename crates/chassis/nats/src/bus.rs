//! The connection to NATS.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::service::endpoint::Endpoint;
use async_nats::service::{self, EndpointBuilder};
use async_nats::{Client, ConnectOptions, HeaderMap, jetstream};
use headwater_telemetry::health::{Health, State};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::connection_events::{Connection, Events, REPEAT_AFTER};
use crate::login;

pub use crate::config::Config;
pub use crate::connection_events::LOGIN_REFUSED;
pub use crate::error::Error;

/// After this long, the outcome of a request to the server counts as unknown. Shorter than the time
/// after which unanswered pings end the connection: a relay must learn that the link did not carry
/// its batch in time, which it cannot learn from a new connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to reach the server.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The interval of pings. After three unanswered pings, the server counts as gone: a server that
/// hangs or is cut off closes no connection, and in a cluster, the client can use another server.
const PING_EVERY: Duration = Duration::from_secs(2);

/// The interval of pings on a connection for events, where a large event delays the answer: 512 KiB
/// take eight seconds on a link of 64 kB/s.
const PING_AMID_EVENTS_EVERY: Duration = Duration::from_secs(5);

/// The first server version that passes on the answer to a consumer reset from another account.
/// Services that log in are assumed to reach the streams through another account (deploy/nats).
pub const ACCOUNTS_SINCE: (i64, i64, i64) = (2, 14, 4);

/// The smallest limit to assume for messages if the server does not report it, in bytes.
const LIMIT_MIN: usize = 16 * 1024;

/// The maximum size of a reply's headers, in bytes.
const REPLY_HEADERS_MAX: usize = 1024;

/// The maximum length of a refusal's text, in bytes; a longer text is cut.
const REFUSAL_MAX: usize = 600;

/// How long after a refused subscription to reconnect, so that the client subscribes again.
const RESUBSCRIBE_MIN: Duration = Duration::from_secs(2);
const RESUBSCRIBE_MAX: Duration = Duration::from_mins(10);

/// The pause between checks of a connection that is down.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// The name of the component in `/readyz?verbose`, which exists while the broker refuses something.
const COMPONENT: &str = "nats";

/// The state of components that need the broker while it is unreachable.
pub const NOT_CONNECTED: &str = "not connected to NATS";

/// A connection to NATS and JetStream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    /// The connection itself.
    pub client: Client,
    /// JetStream over it.
    pub jetstream: jetstream::Context,
    /// The minimum number of replicas of a stream.
    pub replicas: usize,
    name: Arc<str>,
    config: Arc<Config>,
    access: Access,
    connected: watch::Receiver<Connection>,
    trouble: watch::Receiver<Option<(String, Instant)>>,
    limit: Arc<Mutex<Limit>>,
    /// Reconnects when the credentials change; ends with the last handle.
    _renewal: Arc<JoinSet<()>>,
}

impl Bus {
    /// Connects as `name`. Does not wait for the server: a service starts without it, and the
    /// client connects and reconnects in the background.
    ///
    /// # Errors
    /// [`Error::Setting`]: the configuration is invalid, such as an unreadable credentials or
    /// password file, or a wrong URL.
    pub async fn connect(name: &str, config: &Config) -> Result<Self, Error> {
        let access = Access::read(name, config)?;
        let tls_first = config.tls_first || access.begins_with_tls().await == Some(true);
        let config = Config {
            tls_first,
            ..config.clone()
        };
        Self::connect_with(name, &config, access, PING_EVERY).await
    }

    async fn connect_with(
        name: &str,
        config: &Config,
        access: Access,
        ping_every: Duration,
    ) -> Result<Self, Error> {
        let events = Arc::new(Events::new(name, &access, config.tls_first));
        let (connected, trouble) = (events.connection(), events.trouble());
        let mut options = access
            .options()
            .name(name)
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .ping_interval(ping_every);
        if config.tls_first {
            options = options.tls_first();
        }
        let options = reconnecting(options, events);
        let of = || format!("connect to NATS at {}", login::without_secrets(&config.url));
        let client = options.connect(access.servers()).await.with_context(of);
        let client = client.map_err(Error::of)?;
        let jetstream = ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(REQUEST_TIMEOUT)
            .build(client.clone());
        let mut renewal = JoinSet::new();
        renewal.spawn(reconnect_on_change(
            client.clone(),
            access.renewed(),
            connected.clone(),
        ));
        Ok(Self {
            client,
            jetstream,
            replicas: config.replicas,
            name: name.into(),
            config: Arc::new(config.clone()),
            access,
            connected,
            trouble,
            limit: Arc::default(),
            _renewal: Arc::new(renewal),
        })
    }

    /// Another connection like this one, for events. The current runtime drives it.
    ///
    /// # Errors
    /// See [`connect`](Self::connect).
    pub async fn another(&self) -> Result<Self, Error> {
        let (access, ping_every) = (self.access.clone(), PING_AMID_EVENTS_EVERY);
        Self::connect_with(&self.name, &self.config, access, ping_every).await
    }

    /// Reads the credentials and certificates again; returns whether they have changed. Then all
    /// connections reconnect. The outcome of requests under way is unknown, as after any broken
    /// connection.
    ///
    /// # Errors
    /// [`Error::Setting`]: a file is invalid. Nothing changes then.
    pub fn renew_access(&self) -> Result<bool, Error> {
        let renewed = self.access.renew();
        renewed.map_err(|error| Error::Setting(error.into()))
    }

    /// Reconnects if the server now takes larger messages than when the connection was made: a
    /// server does not notify clients of a reloaded configuration.
    pub async fn learn_payload_max(&self) {
        let options = self.access.options().name(&*self.name);
        let asked = options
            .connection_timeout(REQUEST_TIMEOUT)
            .connect(self.access.servers())
            .await;
        let max = asked.map_or(0, |asked| asked.max_payload());
        if max > self.client.max_payload() {
            // Fails only if the connection is closed for good.
            let _ = self.client.force_reconnect().await;
        }
    }

    /// The client, for features that the chassis does not offer.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The maximum size of a message now, with its headers, in bytes: the limit that the server
    /// reported on connecting, lowered after each message that it refused since.
    pub fn max_payload(&self) -> usize {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.now(self.client.max_payload(), self.connected.borrow().too_large)
    }

    /// The maximum size of a reply's body now, in bytes.
    pub fn reply_max(&self) -> usize {
        self.max_payload().saturating_sub(REPLY_HEADERS_MAX)
    }

    /// Replies to `request`. An answer that is too large for the server becomes a refusal with that
    /// reason.
    pub async fn respond(
        &self,
        request: &service::Request,
        answer: Result<Vec<u8>, service::error::Error>,
        headers: HeaderMap,
    ) {
        let subject = &*request.message.subject;
        let bytes_max = self.reply_max();
        let answer = answer.and_then(|answer| {
            let bytes = answer.len();
            if bytes <= bytes_max {
                return Ok(answer.into());
            }
            let status = format!(
                "the answer has {bytes} bytes, but the NATS server or account takes at most \
                 {bytes_max}: raise `max_payload`, or ask for less"
            );
            tracing::warn!(
                subject,
                bytes,
                bytes_max,
                "refused an answer that is too large for NATS: raise `max_payload`"
            );
            Err(service::error::Error { code: 413, status })
        });
        let answer = answer.map_err(|mut refusal| {
            refusal.status = header_text(&refusal.status);
            refusal
        });
        if let Err(error) = request.respond_with_headers(answer, headers).await {
            tracing::warn!(%error, subject, "cannot reply");
        }
    }

    /// Reports refusals of the broker to `health`, as long as they last, until `stop`.
    ///
    /// # Errors
    /// [`Error::HandshakeChanged`]: only a restart can adapt to that.
    pub async fn report(self, health: Health, stop: CancellationToken) -> Result<(), Error> {
        let mut trouble = self.trouble.clone();
        // Not a sleep: each attempt to connect may change the trouble and would restart it.
        let mut look = tokio::time::interval(LOOK_PAUSE);
        let mut logged = None;
        loop {
            let now = trouble.borrow_and_update().clone();
            let lasting = now.filter(|(_, at)| !self.is_up() || at.elapsed() < REPEAT_AFTER);
            let outdated = self.outdated();
            if outdated.is_some() && outdated != logged {
                tracing::error!("{}", outdated.as_deref().unwrap_or_default());
            }
            logged.clone_from(&outdated);
            match lasting.map(|(text, _)| text).or(outdated) {
                Some(text) => health.set(COMPONENT, State::Degraded(text)),
                None => health.forget(COMPONENT),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = trouble.changed() => changed
                    .context("follow the connection to NATS")
                    .map_err(Error::of)?,
                _ = look.tick() => {
                    let looked = stop.run_until_cancelled(self.expect_same_beginning());
                    looked.await.transpose()?;
                }
            }
        }
    }

    /// Why the server is too old for a service that logs in, if it is.
    fn outdated(&self) -> Option<String> {
        // Before the server has sent INFO, the client reports it as compatible with no version.
        let version = self.client.server_info().version;
        if version.is_empty() || !self.access.logs_in() {
            return None;
        }
        let (major, minor, patch) = ACCOUNTS_SINCE;
        let is_new = self.client.is_server_compatible(major, minor, patch);
        (self.is_up() && !is_new).then(|| {
            format!(
                "nats-server {version} is too old for services with separate accounts: \
                 projections wait; install {major}.{minor}.{patch} or later"
            )
        })
    }

    /// Returns an error if the server's `handshake_first` differs from this connection's: the
    /// client library cannot change that.
    async fn expect_same_beginning(&self) -> Result<(), Error> {
        if self.is_up() || self.access.is_told_to_begin_with_tls() {
            return Ok(());
        }
        let is_other = self.access.begins_with_tls().await == Some(!self.config.tls_first);
        if is_other && !self.is_up() {
            let what = "the NATS server's `handshake_first` has changed since this service \
                        started: restart the service";
            return Err(Error::HandshakeChanged(what.into()));
        }
        Ok(())
    }

    /// Whether the connection is up.
    pub fn is_up(&self) -> bool {
        self.connected.borrow().up
    }

    /// Resolves when the connection is up. Until then, passes the reason why it is down to
    /// `report`, on every change.
    pub async fn up_or_told(&self, report: impl Fn(String)) {
        let (mut connected, mut trouble) = (self.connected.clone(), self.trouble.clone());
        while !connected.borrow_and_update().up {
            let why = trouble.borrow_and_update().clone();
            let refused = why.filter(|(why, _)| why.starts_with(LOGIN_REFUSED));
            report(refused.map_or_else(|| NOT_CONNECTED.to_owned(), |(why, _)| why));
            let changed = tokio::select! {
                changed = connected.changed() => changed,
                changed = trouble.changed() => changed,
            };
            if changed.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves when the connection has come up again since `seen` was taken.
    pub async fn reconnected(&self, seen: Seen) {
        let mut connected = self.connected.clone();
        if connected.wait_for(|now| now.times > seen.0).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The current state, for [`reconnected`](Self::reconnected).
    pub fn seen(&self) -> Seen {
        Seen(self.connected.borrow().times)
    }
}

/// `options` for a connection that reconnects whenever it breaks, and reports to `events`.
fn reconnecting(options: ConnectOptions, events: Arc<Events>) -> ConnectOptions {
    let attempts = Arc::clone(&events);
    options
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_pause)
        // It chooses no server. Only here does the client report why an attempt failed.
        .reconnect_to_server_callback(move |servers, _| {
            let causes = servers.iter().find_map(|server| server.last_error.as_ref());
            if let Some(cause) = causes {
                attempts.unreachable(cause);
            }
            async { None }
        })
        .connection_timeout(REQUEST_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        // Queue little across a reconnect: messages that wait there are sent out of order.
        .client_capacity(256)
        .event_callback(move |event| {
            events.note(&event);
            async {}
        })
}

/// Reconnects when the credentials have changed, and some time after the server refused a
/// subscription: the server forgets refused subscriptions, and may allow them by then.
async fn reconnect_on_change(
    client: Client,
    mut renewed: watch::Receiver<()>,
    mut connected: watch::Receiver<Connection>,
) {
    let (mut pause, mut seen, mut last) = (RESUBSCRIBE_MIN, 0, Instant::now());
    let mut due: Option<Instant> = None;
    loop {
        let refused = connected.wait_for(|now| now.unsubscribed > seen);
        let waited = async {
            match due {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            renewed = renewed.changed() => if renewed.is_err() { return },
            refused = refused, if due.is_none() => {
                if refused.is_err() { return }
                // Wait longer after each refusal in a row.
                let is_in_a_row = last.elapsed() < RESUBSCRIBE_MAX;
                pause = if is_in_a_row { pause * 2 } else { RESUBSCRIBE_MIN };
                pause = pause.min(RESUBSCRIBE_MAX);
                due = Some(Instant::now() + pause);
                continue;
            }
            () = waited => {}
        }
        due = None;
        last = Instant::now();
        seen = connected.borrow().unsubscribed;
        // A connection that is down will come up with the new credentials anyway.
        if connected.borrow().up {
            // Fails only if the connection is closed for good.
            let _ = client.force_reconnect().await;
        }
    }
}

/// How often the connection had come up at some moment, for [`Bus::reconnected`].
#[derive(Debug, Clone, Copy)]
pub struct Seen(u64);

fn reconnect_pause(attempt: usize) -> Duration {
    let doubled =
        Duration::from_millis(20) * 2_u32.pow(u32::try_from(attempt.min(10)).unwrap_or(10));
    doubled.min(RECONNECT_PAUSE_MAX)
}

/// The largest message that the server takes. The server reports its limit only on connecting. A
/// limit of the account, or one that was lowered since, shows only when a message is refused.
#[derive(Debug, Default)]
struct Limit {
    reported: usize,
    /// How many messages had been refused at the last check.
    refused: u64,
    now: usize,
}

impl Limit {
    /// The limit, given the one that the server `reported` and the number of messages that it has
    /// `refused` as too large.
    fn now(&mut self, reported: usize, refused: u64) -> usize {
        if reported != self.reported {
            (self.reported, self.now) = (reported, reported);
        } else if refused > self.refused {
            self.now = (self.now / 4).max(LIMIT_MIN.min(self.now));
        }
        self.refused = refused;
        self.now
    }
}

/// `text` as a header value: on one line, and not too long.
fn header_text(text: &str) -> String {
    let end = text.floor_char_boundary(REFUSAL_MAX);
    let cut = if end < text.len() { "…" } else { "" };
    text[..end].replace(char::is_control, " ") + cut
}

/// Offers `subject` as an endpoint of a service on the NATS Services API.
///
/// # Errors
/// The connection is closed for good.
pub async fn offer(builder: EndpointBuilder, subject: &str) -> Result<Endpoint, Error> {
    // Names of endpoints cannot have dots.
    let offered = builder.name(subject.replace('.', "-")).add(subject);
    offered
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("offer the endpoint {subject}"))
        .map_err(Error::of)
}

/// Metadata that `nats stream info` and `nats consumer info` show.
pub fn metadata<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (format!("headwater.{key}"), value.to_owned()))
        .collect()
}
