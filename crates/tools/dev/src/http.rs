//! Asking the services.

use std::error::Error;
use std::time::Duration;

use anyhow::{Context as _, bail};
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// How long one request may take: longer than a service waits for `?after`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request is tried again while its service is busy or behind.
const PATIENCE: Duration = Duration::from_mins(1);

/// The pause before it is tried again, where the service asks for no longer one.
const PAUSE: Duration = Duration::from_millis(100);

/// A client of services that are all near: proxy variables are not for them.
pub(crate) fn client() -> anyhow::Result<Client> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(TIMEOUT);
    client.build().context("make the HTTP client")
}

/// Sends `request`, again and again while its service does not answer or says 503.
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
            bail!("{why}, again and again for {PATIENCE:?}");
        }
        sleep(pause).await;
    }
}

/// What a service says when it says no: status and, if there is a problem in it, its detail.
pub(crate) async fn refusal(answer: Response) -> String {
    let status = answer.status();
    let problem: Value = answer.json().await.unwrap_or_default();
    match (problem["detail"].as_str(), &problem["errors"]) {
        (Some(detail), Value::Null) => format!("{status}: {detail}"),
        (Some(detail), errors) => format!("{status}: {detail} {errors}"),
        (None, _) => status.to_string(),
    }
}

/// The innermost cause: `Connection refused` says more than `error sending request`.
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
