//! What an effect asks the sources of its events.

use std::time::Duration;

use anyhow::Context as _;
use headwater_nats::Bus;
use headwater_nats::control::{self, Endpoint, EventsAnswer, EventsRequest};

/// How long a source may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Asks `source` for its epoch and head, and for the event at `position`, if one is named, without
/// its payload.
pub(crate) async fn ask(
    bus: &Bus,
    source: &str,
    position: Option<u64>,
) -> anyhow::Result<EventsAnswer> {
    let request = EventsRequest {
        epoch: None,
        from: position.unwrap_or(1),
        limit: usize::from(position.is_some()),
        // Part of the payload is enough.
        max_bytes: Some(0),
        offset: Some(0),
    };
    let answer = control::ask::<EventsAnswer>(bus, source, Endpoint::Events, &request);
    let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await;
    let answer = answer
        .context("no answer in time")
        .and_then(|answer| Ok(answer?));
    answer.with_context(|| format!("{source} does not say what it has recorded"))
}
