//! Requests to the services.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// How long a request may take: longer than a service waits for `?after`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request is retried while its service is busy or behind.
const PATIENCE: Duration = Duration::from_mins(1);

/// The pause before a retry, unless the service asks for a longer one.
const PAUSE: Duration = Duration::from_millis(100);

/// A client for the local services, without proxies.
pub(crate) fn client() -> anyhow::Result<Client> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT);
    client.build().context("create the HTTP client")
}

/// Sends `request`, and retries while its service does not answer or answers 503.
pub(crate) async fn send(request: &RequestBuilder) -> anyhow::Result<Response> {
    let end = Instant::now() + PATIENCE;
    loop {
        let again = request.try_clone().expect("the body is in memory");
        let (why, pause) = match again.send().await {
            Ok(busy) if busy.status() == StatusCode::SERVICE_UNAVAILABLE => {
                let pause = retry_after(&busy).max(PAUSE);
                (refusal(busy).await, pause)
            }
            Ok(answer) => return Ok(answer),
            Err(error) => (format!("no answer ({})", cause(&error)), PAUSE),
        };
        if Instant::now() + pause > end {
            bail!("{why}, repeatedly for {PATIENCE:?}");
        }
        sleep(pause).await;
    }
}

/// A service's refusal: the status and, from a problem, its detail.
pub(crate) async fn refusal(answer: Response) -> String {
    let status = answer.status();
    let problem: Value = answer.json().await.unwrap_or_default();
    match (problem["detail"].as_str(), &problem["errors"]) {
        (Some(detail), Value::Null) => format!("{status}: {detail}"),
        (Some(detail), errors) => format!("{status}: {detail} {errors}"),
        (None, _) => status.to_string(),
    }
}

/// The innermost cause: `Connection refused` is more useful than `error sending request`.
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn retry_after(answer: &Response) -> Duration {
    let seconds = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}
