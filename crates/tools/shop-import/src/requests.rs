//! Sends requests to one service, and retries while that may help.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};
use tokio::time::Instant;

use crate::ids::Kind;
use crate::problem::{self, Problem};
use crate::records::Request;

const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A request may take the whole patience, within these limits.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// A service that creates records.
pub(crate) struct Service {
    client: Client,
    url: Url,
    kind: Kind,
    patience: Duration,
}

/// Why a record was not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The line is not a record; nothing was sent.
    #[error("{0}")]
    Malformed(String),
    /// The service refused it; a retry would not help.
    #[error("{0}")]
    Refused(Problem),
    /// The service was down or busy until the patience was exhausted.
    #[error("{trouble}, gave up after {:.1} s", since.elapsed().as_secs_f64())]
    GaveUp { since: Instant, trouble: Trouble },
}

/// An error that may be temporary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// Connection refused or reset, or a timeout.
    #[error("no answer ({0})")]
    NoAnswer(String),
    /// The service is overloaded or restarting, or a proxy cannot reach it.
    #[error("{problem}")]
    Busy {
        problem: Problem,
        retry_after: Duration,
    },
}

/// The result of one request.
enum Attempt {
    Created(Option<u64>),
    Refused(Problem),
    Again(Trouble),
}

/// Creates the client for all services. The services are local, so proxy variables are ignored.
/// Redirects are reported and not followed: they would turn a POST into a GET.
pub(crate) fn client() -> anyhow::Result<Client> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none());
    client.build().context("create the HTTP client")
}

impl Service {
    /// `after`: positions of other services that this service must have applied, or an empty text.
    pub(crate) fn new(
        client: &Client,
        kind: Kind,
        base: &Url,
        after: &str,
        patience: Duration,
    ) -> Self {
        let mut url = base.clone();
        url.path_segments_mut()
            .expect("http URLs have a path")
            .pop_if_empty()
            .push(kind.name());
        url.set_query(
            (!after.is_empty())
                .then(|| format!("after={after}"))
                .as_deref(),
        );
        Self {
            client: client.clone(),
            url,
            kind,
            patience,
        }
    }

    /// Creates a record and returns its position if the service reported it. `waiting` is called
    /// for each temporary error.
    pub(crate) async fn create(
        &self,
        request: &Request,
        waiting: impl Fn(&Trouble),
    ) -> Result<Option<u64>, Failure> {
        let since = Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            let left = self.patience.saturating_sub(since.elapsed());
            let trouble = match self.attempt(request, left).await {
                Attempt::Created(position) => return Ok(position),
                Attempt::Refused(problem) => return Err(Failure::Refused(problem)),
                Attempt::Again(trouble) => trouble,
            };
            let wait = pause.max(trouble.retry_after());
            if since.elapsed().saturating_add(wait) > self.patience {
                return Err(Failure::GaveUp { since, trouble });
            }
            waiting(&trouble);
            tokio::time::sleep(wait).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }

    async fn attempt(&self, request: &Request, left: Duration) -> Attempt {
        let sent = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", &request.idempotency_key)
            .timeout(left.clamp(TIMEOUT_MIN, TIMEOUT_MAX))
            .body(request.body.clone())
            .send();
        let response = match sent.await {
            Ok(response) => response,
            Err(error) => return Attempt::Again(Trouble::NoAnswer(cause(&error))),
        };
        if response.status() == StatusCode::CREATED {
            let position = position(response.headers(), self.kind);
            problem::read(response).await;
            return Attempt::Created(position);
        }
        let retry_after = retry_after(response.headers());
        let problem = Problem::read(response).await;
        if may_pass(problem.status) {
            Attempt::Again(Trouble::Busy {
                problem,
                retry_after,
            })
        } else {
            Attempt::Refused(problem)
        }
    }
}

impl Failure {
    /// The HTTP status of the service's answer, if any.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(problem)
            | Self::GaveUp {
                trouble: Trouble::Busy { problem, .. },
                ..
            } => Some(problem.status.as_u16()),
            _ => None,
        }
    }
}

impl Trouble {
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    fn retry_after(&self) -> Duration {
        match self {
            Self::NoAnswer(_) => Duration::ZERO,
            Self::Busy { retry_after, .. } => *retry_after,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.url)
    }
}

fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// Reads `Headwater-Position: <source>:<position>`.
fn position(headers: &HeaderMap, source: Kind) -> Option<u64> {
    let value = headers.get("headwater-position")?.to_str().ok()?;
    value
        .strip_prefix(source.name())?
        .strip_prefix(':')?
        .parse()
        .ok()
}

/// Parses `Retry-After` in seconds; our services do not use dates.
fn retry_after(headers: &HeaderMap) -> Duration {
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// The innermost cause: `Connection refused` is more useful than `error sending request`.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
