//! `events`: the outbox of a source, by position.

use headwater_event::Row;
use serde::{Deserialize, Serialize};

/// Asks for events by position.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsRequest {
    /// The life of the source that is meant; without it, the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The first position.
    pub from: u64,
    /// How many at most.
    #[serde(default = "one")]
    pub limit: usize,
    /// How large the answer may be, in bytes: what a slow link carries in time, or what the
    /// server of who asks takes. The answer is never larger than what the server of the source
    /// takes; a wish below 16 KiB counts as 16 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<usize>,
    /// Allows the answer to have only a part of the first event, where one answer has no room for
    /// all of its payload: the part that begins at this byte of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<usize>,
}

fn one() -> usize {
    1
}

/// Events by position.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventsAnswer {
    /// The life of the source.
    pub epoch: String,
    /// The newest position that it has.
    pub head: u64,
    /// The events from the asked position on; fewer than asked when there are no more or they
    /// are large.
    pub events: Vec<Row>,
    /// How many bytes of the only event's payload come after what is here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rest: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Asks for a page of events with `ask`. An event that is too large for one answer is put together
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
            // The source contradicts itself; without this event the page makes no progress.
            _ => page.events.clear(),
        }
    }
    Ok(page)
}
