//! Waiting until all services are ready.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::anyhow;
use reqwest::Client;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::http;
use crate::system::{Running, indented};

/// How long it may take: read models that were deleted are folded again first.
const WITHIN: Duration = Duration::from_mins(1);

/// How often we ask.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What `/readyz?verbose` says of a part.
#[derive(Deserialize)]
struct Part {
    state: String,
    detail: String,
}

/// Why a service is not ready.
enum Missing {
    /// Its log may say more.
    NoAnswer(String),
    /// It says so itself.
    Parts(String),
}

/// Waits until every part of every service does its work.
///
/// More than a 200: that only says that no part has failed, but here nothing should be amiss.
pub(crate) async fn wait(running: &[Running]) -> anyhow::Result<()> {
    let client = http::client()?;
    let end = Instant::now() + WITHIN;
    for service in running {
        while let Some(missing) = missing(&client, &service.admin_url).await {
            if Instant::now() >= end {
                return Err(not_ready(service, missing));
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

fn not_ready(service: &Running, missing: Missing) -> anyhow::Error {
    let (why, log) = match missing {
        Missing::Parts(why) => (why, String::new()),
        Missing::NoAnswer(why) => (
            why,
            format!("; its last lines:{}", indented(&service.tail.text())),
        ),
    };
    let name = service.service.name();
    anyhow!("{name} is not ready after {WITHIN:?}: {why}{log}")
}

/// What is still missing, if anything is.
async fn missing(client: &Client, url: &str) -> Option<Missing> {
    let answer = match client.get(format!("{url}/readyz?verbose")).send().await {
        Ok(answer) => answer,
        Err(error) => return Some(Missing::NoAnswer(http::cause(&error))),
    };
    match answer.json::<BTreeMap<String, Part>>().await {
        Ok(parts) => amiss(parts).map(Missing::Parts),
        Err(error) => Some(Missing::NoAnswer(http::cause(&error))),
    }
}

fn amiss(parts: BTreeMap<String, Part>) -> Option<String> {
    if parts.is_empty() {
        return Some("none of its parts has said how it is doing".to_owned());
    }
    let amiss: Vec<_> = parts
        .into_iter()
        .filter(|(_, part)| part.state != "ok")
        .map(|(name, part)| format!("\n  {name}: {}", part.detail))
        .collect();
    (!amiss.is_empty()).then(|| amiss.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ready_once_all_its_parts_are_ok() {
        let amiss = |json: &str| amiss(serde_json::from_str(json).unwrap());
        assert!(amiss("{}").is_some());
        let ok = r#""relay": {"state": "ok", "detail": "published up to 3"}"#;
        assert_eq!(amiss(&format!("{{{ok}}}")), None);
        let waits = r#""orders": {"state": "degraded", "detail": "waiting: no stream"}"#;
        let expected = "\n  orders: waiting: no stream";
        assert_eq!(
            amiss(&format!("{{{ok}, {waits}}}")).as_deref(),
            Some(expected)
        );
    }
}
