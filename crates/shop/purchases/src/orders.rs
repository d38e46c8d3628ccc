//! Places orders: the form's way to the service `orders`, over its HTTP API.

use std::time::Duration;

use headwater::Positions;
use headwater::http::POSITION;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, StatusCode, redirect};
use serde::Deserialize;
use serde_json::json;
use url::Url;
use uuid::Uuid;

/// How long an unused connection to the service is kept.
const IDLE: Duration = Duration::from_secs(5);

/// How long an order may take, with its connection.
const WITHIN: Duration = Duration::from_secs(5);

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 256 * 1024;

/// The service `orders`. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Orders {
    client: Client,
    url: String,
}

/// Why no order was placed, as far as is known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotPlaced {
    /// The order is wrong.
    #[error("{0}")]
    Refused(String),
    /// The service is away or busy. It may have placed the order: sending it again with the same key
    /// places it once.
    #[error("{0}")]
    Unknown(String),
}

/// The kind of problem of a form that is changed and sent again after it has placed an order.
const KEY_REUSED: &str = "urn:headwater:problem:idempotency-key-reused";

/// The part of a problem that people read.
#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
    #[serde(default)]
    errors: Vec<Field>,
}

#[derive(Deserialize)]
struct Field {
    detail: String,
}

impl Orders {
    /// `url`: where the service is.
    pub(crate) fn at(url: &Url) -> reqwest::Result<Self> {
        let client = Client::builder()
            // The service is on the same network: ignore proxy variables.
            .no_proxy()
            .redirect(redirect::Policy::none())
            // The service closes idle connections after ten seconds.
            .pool_idle_timeout(IDLE)
            .timeout(WITHIN)
            .build()?;
        let url = format!("{}/orders", url.as_str().trim_end_matches('/'));
        Ok(Self { client, url })
    }

    /// Places an order; returns its position. The same `key` places it once.
    pub(crate) async fn place(
        &self,
        key: Uuid,
        user: Uuid,
        products: &[Uuid],
    ) -> Result<Positions, NotPlaced> {
        let order = json!({"user_id": user, "product_ids": products});
        let request = self
            .client
            .post(&self.url)
            .header("Idempotency-Key", key.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(order.to_string());
        let away = |error: reqwest::Error| {
            let why = if error.is_timeout() {
                "did not answer in time"
            } else {
                "cannot be reached"
            };
            tracing::warn!(%error, "an order could not be sent");
            NotPlaced::Unknown(format!("The service orders {why}."))
        };
        let mut answer = request.send().await.map_err(away)?;
        let (status, position) = (answer.status(), answer.headers().get(POSITION).cloned());
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                break;
            }
            body.extend_from_slice(&chunk);
        }
        if status == StatusCode::CREATED {
            let position = position.as_ref().and_then(|value| value.to_str().ok());
            let position = position.and_then(|text| text.parse().ok());
            return position.ok_or_else(|| {
                NotPlaced::Unknown("The service orders gave no position.".to_owned())
            });
        }
        let problem = serde_json::from_slice(&body).ok();
        let why = problem.map_or_else(|| format!("it answered {status}"), in_words);
        if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
            return Err(NotPlaced::Refused(why));
        }
        Err(NotPlaced::Unknown(format!(
            "The service orders cannot place it now: {why}."
        )))
    }
}

fn in_words(problem: Problem) -> String {
    if problem.kind == KEY_REUSED {
        return "This form has placed another order already, and nothing was placed now. Check what \
                is chosen, and send it as a new order."
            .to_owned();
    }
    if problem.errors.is_empty() {
        return problem.detail;
    }
    let errors = problem.errors.into_iter().map(|field| field.detail);
    errors.collect::<Vec<_>>().join("; ")
}
