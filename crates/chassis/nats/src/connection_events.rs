//! Events of a NATS connection. They are recorded for waiting tasks, and logged: each cause with
//! what to do about it, but not at every attempt.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Event, ServerError};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::Access;
use crate::brokers;

/// The beginning of the state if the broker refuses the login.
pub const LOGIN_REFUSED: &str = "login refused";

/// How long a repeated error is only counted, not logged.
pub(super) const REPEAT_AFTER: Duration = Duration::from_mins(1);

/// How long an error is remembered.
const FORGET_AFTER: Duration = Duration::from_mins(10);

/// How many different errors are distinguished within that time; all further ones count as one.
const KINDS_MAX: usize = 32;

/// The state of the connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Connection {
    pub(super) up: bool,
    /// How often it came up.
    pub(super) times: u64,
    /// How often the server refused a message as too large, and closed the connection.
    pub(super) too_large: u64,
    /// How often the server refused a subscription. The server forgets refused subscriptions.
    pub(super) unsubscribed: u64,
}

/// Records and logs the events.
#[derive(Debug)]
pub(super) struct Events {
    service: String,
    access: Access,
    is_tls_first: bool,
    connection: watch::Sender<Connection>,
    /// The newest trouble for the operator, and when it occurred.
    trouble: watch::Sender<Option<(String, Instant)>>,
    logged: Mutex<Logged>,
}

/// What was logged.
#[derive(Debug, Default)]
struct Logged {
    /// Why connecting has failed since the connection was last up.
    causes: HashSet<String>,
    /// Errors of the server: when each was logged, and how often it has occurred since.
    errors: HashMap<String, (Instant, u64)>,
}

impl Logged {
    /// How often `error` has occurred since it was last logged; `None` if it was logged recently.
    fn repeated(&mut self, error: &str, now: Instant) -> Option<u64> {
        self.errors.retain(|_, (at, _)| now - *at < FORGET_AFTER);
        let is_distinguished = self.errors.len() < KINDS_MAX || self.errors.contains_key(error);
        let kind = if is_distinguished { error } else { "" };
        match self.errors.get_mut(kind) {
            Some((at, count)) if now - *at < REPEAT_AFTER => {
                *count += 1;
                None
            }
            Some(known) => {
                let count = known.1;
                *known = (now, 0);
                Some(count)
            }
            None => {
                self.errors.insert(kind.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}

impl Events {
    pub(super) fn new(service: &str, access: &Access, is_tls_first: bool) -> Self {
        Self {
            service: service.to_owned(),
            access: access.clone(),
            is_tls_first,
            connection: watch::Sender::default(),
            trouble: watch::Sender::default(),
            logged: Mutex::default(),
        }
    }

    pub(super) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    pub(super) fn trouble(&self) -> watch::Receiver<Option<(String, Instant)>> {
        self.trouble.subscribe()
    }

    pub(super) fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connection.send_modify(|now| {
                    now.up = true;
                    now.times += 1;
                });
                self.logged().causes.clear();
                self.trouble.send_replace(None);
                let service = self.service.clone();
                metrics::counter!("headwater_nats_connects_total", "service" => service)
                    .increment(1);
                tracing::info!("connected to NATS");
            }
            Event::Disconnected => {
                self.connection.send_modify(|now| now.up = false);
                tracing::warn!("connection to NATS lost");
            }
            Event::ServerError(error) => self.refused(error),
            // Other causes come with the next attempt, in more detail.
            Event::ClientError(error) if error.to_string().contains("DNS") => {
                self.unreachable(&error.to_string());
            }
            other => tracing::debug!(event = %other, "NATS connection"),
        }
    }

    /// Records why the last attempt to connect failed; logs each cause once.
    pub(super) fn unreachable(&self, cause: &str) {
        let advice = if is_refused_login(cause) && !self.access.is_renewable() {
            "the server does not know this login: fix the credentials and restart the service, \
             which reads them only at its start"
        } else if self.is_tls_first {
            advice_to_tls_first(cause)
        } else {
            advice(cause)
        };
        let (what, cause_of) = if is_refused_login(cause) {
            (
                format!("{LOGIN_REFUSED}: {}", self.access.who()),
                String::new(),
            )
        } else {
            ("cannot connect to NATS".to_owned(), format!(": {cause}"))
        };
        self.report(format!("{what}{cause_of}; {advice}"));
        let mut logged = self.logged();
        if logged.causes.len() < KINDS_MAX && logged.causes.insert(cause.to_owned()) {
            tracing::warn!(error = cause, "{what}: {advice}");
        }
    }

    /// Records a refusal. To the caller, a denied publish looks like a timeout and a denied
    /// subscription like silence; only this shows the reason.
    fn refused(&self, error: &ServerError) {
        let error = match error {
            ServerError::Other(error) => error.clone(),
            other => other.to_string(),
        };
        if brokers::is_not_told(&error) {
            return;
        }
        let lower = error.to_lowercase();
        let is_subscription = lower.contains("maximum subscriptions")
            || lower.contains("number of tokens")
            || lower.contains("violation for subscription");
        self.connection.send_modify(|now| {
            now.too_large += u64::from(lower.contains("maximum payload"));
            now.unsubscribed += u64::from(is_subscription);
        });
        let advice = advice(&error);
        let repeated = self.logged().repeated(&error, Instant::now());
        match repeated {
            Some(repeated) if lower.contains("maximum payload") => {
                tracing::warn!(error, repeated, "NATS refused: {advice}");
            }
            Some(repeated) => tracing::error!(error, repeated, "NATS refused: {advice}"),
            None => {}
        }
        self.report(format!("NATS refused: {error}; {advice}"));
    }

    fn report(&self, text: String) {
        self.trouble.send_replace(Some((text, Instant::now())));
    }

    fn logged(&self) -> MutexGuard<'_, Logged> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the operator does about an error. The errors are in lower case; the first match counts.
const ADVICE: [(&str, &str); 12] = [
    (
        "maximum payload",
        "a message was larger than the account or the server takes; from now on, only smaller \
         answers are sent, and larger events wait: raise `max_payload`",
    ),
    (
        "maximum subscriptions",
        "raise `max_subscriptions` of the server, account or user; the service subscribes again \
         automatically",
    ),
    (
        "number of tokens",
        "raise `max_subscription_tokens` of the server; the service subscribes again automatically",
    ),
    (
        "maximum account active connections",
        "raise `max_connections` of the account, or close other connections; retrying",
    ),
    (
        "maximum connections",
        "raise `max_connections` of the server, or close other connections; retrying",
    ),
    (
        "maximum control line",
        "raise `max_control_line` of the server; retrying",
    ),
    (
        "permissions violation",
        "the user may not do this: compare its permissions with deploy/nats",
    ),
    (
        "authorization violation",
        "the server does not know this login: fix the credentials, which are read again on SIGHUP",
    ),
    (
        "stale connection",
        "the server received nothing from this service for too long; reconnecting",
    ),
    (
        "certificate",
        "the service does not trust the server's certificate, or the server does not trust the \
         service's: fix NATS_CA, NATS_CERT, NATS_KEY or the certificate",
    ),
    (
        "expected info, got nothing",
        "the server closed the connection without sending anything: if it begins with TLS \
         (`handshake_first`), set NATS_CA or NATS_TLS_FIRST=true and restart the service",
    ),
    (
        "timed out",
        "no server sent anything at this address in time: if it begins with TLS \
         (`handshake_first`), set NATS_CA or NATS_TLS_FIRST=true and restart the service",
    ),
];

/// Whether the server refused the login.
fn is_refused_login(cause: &str) -> bool {
    let cause = cause.to_lowercase();
    cause.contains("authorization violation") || cause.contains("authentication")
}

fn advice(error: &str) -> &'static str {
    let lower = error.to_lowercase();
    let known = ADVICE.iter().find(|(part, _)| lower.contains(part));
    known.map_or("retrying", |(_, advice)| advice)
}

/// [`advice`] for a connection that begins with TLS.
fn advice_to_tls_first(error: &str) -> &'static str {
    if error.contains("corrupt message") {
        "the server does not begin with TLS: unset NATS_TLS_FIRST and restart the service"
    } else {
        advice(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Config;

    #[test]
    fn an_error_that_repeats_is_logged_once_a_minute_with_how_often_it_came() {
        let (mut logged, start) = (Logged::default(), Instant::now());
        assert_eq!(logged.repeated("no", start), Some(0));
        for _ in 0..1000 {
            assert_eq!(logged.repeated("no", start), None);
        }
        assert_eq!(logged.repeated("no", start + REPEAT_AFTER), Some(1000));
        assert_eq!(logged.repeated("no", start + REPEAT_AFTER), None);
    }

    #[test]
    fn errors_that_all_differ_are_bounded_too() {
        let (mut logged, now) = (Logged::default(), Instant::now());
        let lines = (0..1000).filter_map(|n| logged.repeated(&format!("no to {n}"), now));
        assert_eq!(lines.count(), KINDS_MAX + 1);
        assert!(logged.errors.len() <= KINDS_MAX + 1);
    }

    /// Credentials that systemd passes are a copy, and settings are read once.
    #[test]
    fn a_refused_login_wants_a_restart_unless_it_is_in_a_file_that_is_read_again() {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("password");
        std::fs::write(&file, "s3cret").expect("write");
        let without = Config::at("nats://a");
        let with_file = Config {
            password_file: Some(file),
            ..without.clone()
        };
        for (config, advice) in [(without, "restart the service"), (with_file, "SIGHUP")] {
            let access = Access::read("orders", &config).expect("a login");
            let events = Events::new("orders", &access, false);
            events.unreachable("authorization violation: nats: authorization violation");
            let trouble = events.trouble();
            let text = trouble.borrow().clone().expect("trouble").0;
            assert!(
                text.contains("login refused: ") && text.contains(advice),
                "{text}"
            );
        }
    }

    #[test]
    fn each_limit_of_a_server_has_its_advice() {
        for (error, setting) in [
            ("Maximum Payload Violation", "`max_payload`"),
            ("maximum subscriptions exceeded", "`max_subscriptions`"),
            (
                "IO error: nats: maximum account active connections exceeded",
                "of the account",
            ),
            ("maximum connections exceeded", "of the server"),
            ("maximum control line exceeded", "`max_control_line`"),
            ("Permissions Violation for Publish to \"x\"", "deploy/nats"),
            ("timed out", "NATS_TLS_FIRST=true"),
        ] {
            assert!(
                advice(error).contains(setting),
                "{error}: {}",
                advice(error)
            );
        }
        assert!(advice_to_tls_first("IO error: received corrupt message").contains("unset"));
    }
}
