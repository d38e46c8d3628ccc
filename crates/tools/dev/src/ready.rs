//! Waiting until all services are ready.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use reqwest::Client;
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::http;
use crate::system::{Running, indented};

/// How long it may take: deleted read stores are rebuilt first.
const WITHIN: Duration = Duration::from_mins(1);

/// How often the services are asked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A component in the answer of `/readyz?verbose`.
#[derive(Deserialize)]
struct Part {
    state: String,
    detail: String,
}

/// Waits until every component of every service is ok.
///
/// A 200 is not enough: it only means that no component has failed, and here none may be degraded.
pub(crate) async fn wait(running: &[Running]) -> anyhow::Result<()> {
    let client = http::client()?;
    let end = Instant::now() + WITHIN;
    for service in running {
        while let Some(missing) = missing(&client, service).await {
            if Instant::now() >= end {
                let name = service.service.name();
                bail!("{name} is not ready after {WITHIN:?}: {missing}");
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

/// What is missing, if anything. Without an answer, the end of the service's log is included.
async fn missing(client: &Client, service: &Running) -> Option<String> {
    let url = format!("{}/readyz?verbose", service.admin_url);
    let parts = async { client.get(url).send().await?.json().await };
    match parts.await {
        Ok(parts) => amiss(parts),
        Err(error) => {
            let (why, log) = (http::cause(&error), indented(&service.tail.text()));
            Some(format!("{why}; its last lines:{log}"))
        }
    }
}

fn amiss(parts: BTreeMap<String, Part>) -> Option<String> {
    if parts.is_empty() {
        return Some("none of its components has reported a state".to_owned());
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
