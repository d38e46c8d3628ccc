//! Sends a delivery, and what its answer means.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headwater_telemetry::Clock;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode, header};

use crate::effect::Outcome;
use crate::webhook::connect::Receiver;
use crate::webhook::secret::{self, Secrets};

const USER_AGENT: &str = concat!("headwater/", env!("CARGO_PKG_VERSION"));

/// Sends events to an address.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub(super) receiver: Receiver,
    pub(super) secrets: Secrets,
    pub(super) clock: Clock,
}

impl Webhook {
    /// Sends `body`, which is JSON, with the id `key`. Waits for the answer as long as the effect's
    /// timeout lets it.
    pub async fn post(&self, key: &str, body: String) -> Outcome {
        match self.try_post(key, body).await {
            Ok((status, headers)) => self.outcome(status, &headers),
            Err(reason) => Outcome::retry(reason),
        }
    }

    async fn try_post(&self, key: &str, body: String) -> Result<(StatusCode, HeaderMap), String> {
        let secrets = self.secrets.read().map_err(|error| error.to_string())?;
        let now = self.clock.now().duration_since(UNIX_EPOCH);
        let timestamp = now.map_or(0, |since| since.as_secs()).to_string();
        let signature = secret::sign(&secrets, key, &timestamp, &body);
        let request = Request::post(self.receiver.path())
            .header(header::HOST, self.receiver.authority())
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", key)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        self.receiver.send(request).await
    }

    fn outcome(&self, status: StatusCode, headers: &HeaderMap) -> Outcome {
        let receiver = self.receiver.authority();
        match status {
            _ if status.is_success() => Outcome::Done,
            StatusCode::GONE => Outcome::SwitchOff(format!("{receiver} answers {status}")),
            _ => Outcome::Retry {
                reason: format!("{receiver} answers {status}"),
                after: retry_after(headers, self.clock.now()),
            },
        }
    }
}

/// How long the receiver asks to wait: seconds, or until a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}
