//! `events`: the outbox of a source, by position.

use std::collections::BTreeMap;

use headwater_event::Row;
use serde::{Deserialize, Serialize};

/// A request for events by position.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// The epoch of the source; default: the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The first position.
    pub from: u64,
    /// The maximum number of events.
    #[serde(default = "one")]
    pub limit: usize,
    /// The maximum size of the answer, in bytes: what a slow link carries in time, or what the
    /// client's server accepts. The limit of the source's server also applies. A value below 16 KiB
    /// counts as 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// Allows a partial first event if its whole payload does not fit into one answer: the part of
    /// the payload that begins at this byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}

fn one() -> usize {
    1
}

/// Events by position.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// The epoch of the source.
    pub epoch: String,
    /// The newest position in its outbox.
    pub head: u64,
    /// The events from the requested position on; fewer than requested if there are no more or they
    /// are large.
    pub events: Vec<Row>,
    /// How many bytes of the only event's payload follow after this part.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rest: usize,
    /// The former epochs of the source, which was restored from copies of them, and the last
    /// position up to which it has the events of each. `None` if the answer has events, or if the
    /// source is older than this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inherited: Option<BTreeMap<String, u64>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Requests a page of events with `ask`. An event that is too large for one answer is assembled
/// from several.
///
/// # Errors
/// Those of `ask`.
pub async fn fetch_events<E, F>(
    request: EventsRequest,
    ask: impl Fn(EventsRequest) -> F,
) -> Result<EventsAnswer, E>
where
    F: Future<Output = Result<EventsAnswer, E>>,
{
    let offset = Some(request.offset.unwrap_or(0));
    let mut page = ask(EventsRequest {
        offset,
        ..request.clone()
    })
    .await?;
    while page.rest > 0
        && let [cut] = &mut page.events[..]
    {
        let next = EventsRequest {
            from: cut.position,
            limit: 1,
            offset: Some(cut.payload.len()),
            ..request.clone()
        };
        let mut next = ask(next).await?;
        match next.events.pop() {
            Some(part) if part.position == cut.position && !part.payload.is_empty() => {
                cut.payload.extend(part.payload);
                page.rest = next.rest;
            }
            // The answers contradict each other. The page stays empty, which is no progress.
            _ => page.events.clear(),
        }
    }
    Ok(page)
}
