//! `events`: the outbox by position.

use std::mem;

use headwater_nats::control::{EventsAnswer, EventsRequest};
use headwater_store::{Database, outbox};
use sea_orm::DbErr;

use crate::operator::reply::{Error, json, refuse, too_large};

/// The most events per answer.
const EVENTS_MAX: usize = 1000;

/// The largest answer, in bytes. The server's limit applies if it is smaller.
const ANSWER_MAX: usize = 900 * 1024;

/// The lower bound of a requested answer size, in bytes: a smaller answer has no room for an
/// event's key and subject.
const ANSWER_MIN: usize = 16 * 1024;

/// A page of events, as JSON of at most `bytes_max` bytes.
pub(super) async fn page(
    db: &Database,
    request: EventsRequest,
    bytes_max: usize,
) -> Result<Vec<u8>, Error> {
    if let Some(epoch) = request.epoch.filter(|epoch| **epoch != *db.epoch()) {
        let now = db.epoch();
        return Err(refuse(
            404,
            format!("this database's epoch is {now}, not {epoch}"),
        ));
    }
    let from = request.from;
    if i64::try_from(from).is_err() {
        return Err(refuse(400, format!("`from` must be at most {}", i64::MAX)));
    }
    let wish = request.max_bytes.unwrap_or(ANSWER_MAX).max(ANSWER_MIN);
    let bytes_max = bytes_max.min(ANSWER_MAX).min(wish);
    let limit = match request.offset {
        None | Some(0) => request.limit.min(EVENTS_MAX),
        Some(_) => 1,
    };
    // The head is read from the outbox: another process may have written to it.
    let (head, mut events, inherited) = db
        .read_raw(move |snapshot| {
            let page = outbox::page_within(snapshot, from, limit, bytes_max as u64)?;
            // There is room for it.
            let is_empty = page.is_empty();
            let inherited = is_empty.then(|| outbox::inherited(snapshot)).transpose()?;
            Ok::<_, DbErr>((outbox::raw_head(snapshot)?, page, inherited))
        })
        .await
        .map_err(|error| refuse(500, error.to_string()))?;
    events.truncate(fitting(&events, bytes_max).max(1));
    let mut answer = EventsAnswer {
        epoch: db.epoch().to_string(),
        head,
        events,
        rest: 0,
        inherited,
    };
    if let Some(offset) = request.offset {
        cut(&mut answer, offset, bytes_max)?;
    } else if let Some(bytes) = answer.events.first().map(json_bytes)
        && bytes > bytes_max
    {
        let what = format!("the event {from} (in parts: {{\"from\":{from},\"offset\":0}})");
        return Err(too_large(&what, bytes, bytes_max));
    }
    json(&answer)
}

/// Cuts the payload of the only event to what begins at `offset` and fits.
fn cut(answer: &mut EventsAnswer, offset: usize, bytes_max: usize) -> Result<(), Error> {
    let [row] = &mut answer.events[..] else {
        return Ok(());
    };
    let payload = mem::take(&mut row.payload);
    let Some(wanted) = payload.get(offset..) else {
        let (position, bytes) = (row.position, payload.len());
        let why =
            format!("the event {position} has {bytes} bytes; the offset {offset} is too large");
        return Err(refuse(400, why));
    };
    let rest = json_bytes(row);
    // Base64 makes 4 bytes of 3.
    let room = bytes_max.saturating_sub(rest) / 4 * 3;
    if room == 0 {
        let what = format!("the event {} without its payload", row.position);
        return Err(too_large(&what, rest, bytes_max));
    }
    row.payload = wanted[..wanted.len().min(room)].to_vec();
    answer.rest = wanted.len() - row.payload.len();
    Ok(())
}

/// How many of the first `events` fit into an answer of `bytes_max` bytes.
fn fitting(events: &[outbox::Row], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let within = events.iter().take_while(|row| {
        bytes += json_bytes(row);
        bytes <= bytes_max
    });
    within.count()
}

/// An upper bound of the size of an answer with this event. For several events, it is the sum.
/// Base64 makes 4 bytes of 3, an escape 6 of 1.
fn json_bytes(row: &outbox::Row) -> usize {
    const NAMES_AND_NUMBERS: usize = 400;
    row.payload.len().div_ceil(3) * 4 + 6 * (row.key.len() + row.subject.len()) + NAMES_AND_NUMBERS
}
