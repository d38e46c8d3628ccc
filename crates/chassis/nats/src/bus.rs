//! The connection to NATS.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
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

/// How long a request to the server may take before its outcome counts as unknown. Shorter than the
/// time after which unanswered pings end the connection: a relay has to learn that the link did not
/// carry its batch in time, and a new connection does not say so.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to reach the server.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often the server is asked whether it is there; after three times without an answer it
/// counts as gone. A server that hangs, or is cut off, closes no connection, and of a cluster the
/// others are there.
const PING_EVERY: Duration = Duration::from_secs(2);

/// The same on a connection for events, where no answer comes while a large one does: one of
/// 512 KiB takes a link of 64 kB/s eight seconds.
const PING_AMID_EVENTS_EVERY: Duration = Duration::from_secs(5);

/// The first server that passes on the answer to a consumer's reset from another account. Services
/// that log in are taken to reach the streams by way of one (deploy/nats).
pub const ACCOUNTS_SINCE: (i64, i64, i64) = (2, 14, 4);

/// What an unnamed limit is taken to be at least, in bytes.
const LIMIT_MIN: usize = 16 * 1024;

/// What a reply has besides its body, in bytes at most: the headers of an answer, or of a refusal.
const REPLY_HEADERS_MAX: usize = 1024;

/// The longest text of a refusal, in bytes; a longer one is cut.
const REFUSAL_MAX: usize = 600;

/// How long after a refused subscription the connection is made anew, so that the server is asked
/// again.
const RESUBSCRIBE_MIN: Duration = Duration::from_secs(2);
const RESUBSCRIBE_MAX: Duration = Duration::from_mins(10);

/// How often a connection that is down is looked at.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// The name of its line in `/readyz?verbose`, there while the broker refuses something.
const CHECK: &str = "nats";

/// What parts that need the broker say while it is away.
pub const NOT_CONNECTED: &str = "not connected to NATS";

/// A connection to NATS and JetStream. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Bus {
    /// The connection itself.
    pub client: Client,
    /// JetStream over it.
    pub jetstream: jetstream::Context,
    /// How many copies of a stream are asked for.
    pub replicas: usize,
    name: Arc<str>,
    config: Arc<Config>,
    access: Access,
    connected: watch::Receiver<Connection>,
    trouble: watch::Receiver<Option<(String, Instant)>>,
    limit: Arc<Mutex<Limit>>,
    /// Makes the connection anew when the access is; ends with the last handle.
    _renewal: Arc<JoinSet<()>>,
}

impl Bus {
    /// Connects as `name`. Does not wait for the server: a service comes up without it, and the
    /// connection is made and made again in the background.
    ///
    /// # Errors
    /// The configuration is wrong: an unreadable credentials or password file, a URL that is none.
    pub async fn connect(name: &str, config: &Config) -> anyhow::Result<Self> {
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
    ) -> anyhow::Result<Self> {
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
        let client = options.connect(access.servers()).await.with_context(of)?;
        let jetstream = ContextBuilder::new()
            .timeout(REQUEST_TIMEOUT)
            .ack_timeout(REQUEST_TIMEOUT)
            .build(client.clone());
        let mut renewal = JoinSet::new();
        renewal.spawn(connect_anew(
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

    /// One more connection like this one, for events, which is driven by the runtime that this is
    /// called in.
    ///
    /// # Errors
    /// See [`connect`](Self::connect).
    pub async fn another(&self) -> anyhow::Result<Self> {
        let (access, ping_every) = (self.access.clone(), PING_AMID_EVENTS_EVERY);
        Self::connect_with(&self.name, &self.config, access, ping_every).await
    }

    /// Reads credentials and root certificate anew; whether they are others now. All connections
    /// are made anew then; what is under way on them is not lost, but its outcome unknown, as
    /// whenever a connection breaks.
    ///
    /// # Errors
    /// A file is broken: all stays as it is.
    pub fn renew_access(&self) -> anyhow::Result<bool> {
        self.access.renew()
    }

    /// Makes the connection again if the server now takes larger messages than when it was made:
    /// a server that reloads its configuration tells no client of it.
    pub async fn learn_payload_max(&self) {
        let options = self.access.options().name(&*self.name);
        let asked = options
            .connection_timeout(REQUEST_TIMEOUT)
            .connect(self.access.servers())
            .await;
        let max = asked.map_or(0, |asked| asked.max_payload());
        if max > self.client.max_payload() {
            // It fails only where the connection is gone for good.
            let _ = self.client.force_reconnect().await;
        }
    }

    /// The client, for what the chassis does not offer.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How large a message may be that is sent now, with its headers, in bytes: as the server said
    /// when it accepted the connection, less where it has refused less since.
    pub fn max_payload(&self) -> usize {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.now(self.client.max_payload(), self.connected.borrow().too_large)
    }

    /// How large the body of a reply may be that is sent now, in bytes.
    pub fn reply_max(&self) -> usize {
        self.max_payload().saturating_sub(REPLY_HEADERS_MAX)
    }

    /// Replies to `request`. An answer that is larger than what the server takes becomes a refusal
    /// that says so.
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
                "the answer has {bytes} bytes, and the NATS server or account takes {bytes_max}: raise `max_payload`, or ask for less"
            );
            tracing::warn!(subject, bytes, bytes_max, "an answer is larger than what NATS takes");
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

    /// Tells `health` of what the broker refuses, as long as it lasts, until `stop`.
    ///
    /// # Errors
    /// The server has begun to begin with TLS, or has ceased to: only a new start heeds that.
    pub async fn report(self, health: Health, stop: CancellationToken) -> anyhow::Result<()> {
        let mut trouble = self.trouble.clone();
        // Not a pause: each attempt to connect may bring news, and would begin it again.
        let mut look = tokio::time::interval(LOOK_PAUSE);
        let mut said = None;
        loop {
            let now = trouble.borrow_and_update().clone();
            let lasting = now.filter(|(_, at)| !self.is_up() || at.elapsed() < REPEAT_AFTER);
            let outdated = self.outdated();
            if outdated.is_some() && outdated != said {
                tracing::error!("{}", outdated.as_deref().unwrap_or_default());
            }
            said.clone_from(&outdated);
            match lasting.map(|(text, _)| text).or(outdated) {
                Some(text) => health.set(CHECK, State::Degraded(text)),
                None => health.forget(CHECK),
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = trouble.changed() => changed.context("follow the connection to NATS")?,
                _ = look.tick() => {
                    let looked = stop.run_until_cancelled(self.expect_same_beginning());
                    looked.await.transpose()?;
                }
            }
        }
    }

    /// Why the server cannot serve a user of an account, if it cannot.
    fn outdated(&self) -> Option<String> {
        // Of a server that has not introduced itself the client says that it is compatible with
        // nothing.
        let version = self.client.server_info().version;
        if version.is_empty() || !self.access.logs_in() {
            return None;
        }
        let (major, minor, patch) = ACCOUNTS_SINCE;
        let is_new = self.client.is_server_compatible(major, minor, patch);
        (self.is_up() && !is_new).then(|| {
            format!(
                "nats-server {version} is too old for services with accounts of their own: \
                 projections wait; install {major}.{minor}.{patch} or later"
            )
        })
    }

    /// Errors when the server begins in another way than this connection does: the client library
    /// cannot change that.
    async fn expect_same_beginning(&self) -> anyhow::Result<()> {
        if self.is_up() || self.access.is_told_to_begin_with_tls() {
            return Ok(());
        }
        let is_other = self.access.begins_with_tls().await == Some(!self.config.tls_first);
        ensure!(
            !is_other || self.is_up(),
            "the NATS server's `handshake_first` is another one than when this service started: start it again"
        );
        Ok(())
    }

    /// Whether the connection is up.
    pub fn is_up(&self) -> bool {
        self.connected.borrow().up
    }

    /// Resolves when the connection is up; until then tells `report` why it is not, as often as that
    /// changes.
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

    /// How often the connection has come up.
    pub fn seen(&self) -> Seen {
        Seen(self.connected.borrow().times)
    }
}

/// `options` of a connection that is made again whenever it breaks, and tells `events` of it.
fn reconnecting(options: ConnectOptions, events: Arc<Events>) -> ConnectOptions {
    let attempts = Arc::clone(&events);
    options
        .retry_on_initial_connect()
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_pause)
        // It chooses no server. Here only does the client say why an attempt failed.
        .reconnect_to_server_callback(move |servers, _| {
            let causes = servers.iter().find_map(|server| server.last_error.as_ref());
            if let Some(cause) = causes {
                attempts.unreachable(cause);
            }
            async { None }
        })
        .connection_timeout(REQUEST_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        // Little is queued across a reconnect: what waits there comes out of order.
        .client_capacity(256)
        .event_callback(move |event| {
            events.note(&event);
            async {}
        })
}

/// Makes the connection anew whenever the access was renewed, and some time after the server
/// refused a subscription: it forgets what it refused, and may allow it by then.
async fn connect_anew(
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
                // Each time in a row takes more patience.
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
        // One that is down will come up with the new access anyhow.
        if connected.borrow().up {
            // It fails only where the connection is gone for good.
            let _ = client.force_reconnect().await;
        }
    }
}

/// A moment in the connection's life, for [`Bus::reconnected`].
#[derive(Debug, Clone, Copy)]
pub struct Seen(u64);

fn reconnect_pause(attempt: usize) -> Duration {
    let doubled =
        Duration::from_millis(20) * 2_u32.pow(u32::try_from(attempt.min(10)).unwrap_or(10));
    doubled.min(RECONNECT_PAUSE_MAX)
}

/// The largest message that the server takes. It says so when a connection is made only: a limit
/// of the account, or one that was lowered since, shows when a message is refused.
#[derive(Debug, Default)]
struct Limit {
    said: usize,
    /// How often a message was refused, when this was looked at last.
    refused: u64,
    now: usize,
}

impl Limit {
    /// The limit, where the server `said` one, and has refused messages as too large so often.
    fn now(&mut self, said: usize, refused: u64) -> usize {
        if said != self.said {
            (self.said, self.now) = (said, said);
        } else if refused > self.refused {
            self.now = (self.now / 4).max(LIMIT_MIN.min(self.now));
        }
        self.refused = refused;
        self.now
    }
}

/// `text` as a header may have it: in one line, and not too long.
fn header_text(text: &str) -> String {
    let end = text.floor_char_boundary(REFUSAL_MAX);
    let cut = if end < text.len() { "…" } else { "" };
    text[..end].replace(char::is_control, " ") + cut
}

/// Offers `subject` as an endpoint of a service on the NATS Services API.
pub async fn offer(builder: EndpointBuilder, subject: &str) -> anyhow::Result<Endpoint> {
    // A name may have no dots.
    let offered = builder.name(subject.replace('.', "-")).add(subject);
    offered
        .await
        .map_err(|error| anyhow!(error))
        .with_context(|| format!("offer the endpoint {subject}"))
}

/// Metadata that makes `nats stream info` and `nats consumer info` explain themselves.
pub fn metadata<const N: usize>(pairs: [(&str, &str); N]) -> HashMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (format!("headwater.{key}"), value.to_owned()))
        .collect()
}
