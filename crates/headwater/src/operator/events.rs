//! `events`: the outbox by position.

use sea_orm::DbErr;
use serde::{Deserialize, Serialize};

use super::{Error, refuse};
use crate::database::Database;
use crate::outbox;

/// How many events one answer has at most.
const EVENTS_MAX: usize = 1000;

/// How large the events in one answer may be together, in bytes of JSON: below the server's
/// default `max_payload` of 1 MiB. One event always fits.
const EVENTS_BYTES_MAX: usize = 900 * 1024;

/// Asks for events by position.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    pub events: Vec<outbox::Row>,
}

pub(super) async fn page(db: &Database, request: EventsRequest) -> Result<EventsAnswer, Error> {
    if let Some(epoch) = request.epoch.filter(|epoch| **epoch != *db.epoch()) {
        let now = db.epoch();
        return Err(refuse(
            404,
            format!("this database's epoch is {now}, not {epoch}"),
        ));
    }
    if i64::try_from(request.from).is_err() {
        return Err(refuse(400, "no outbox reaches that far".to_owned()));
    }
    let limit = request.limit.min(EVENTS_MAX);
    // The outbox's own head: another process may have written more than this one knows of.
    let (head, mut events) = db
        .read(move |snapshot| {
            let page = outbox::page_within(snapshot, request.from, limit, EVENTS_BYTES_MAX as u64)?;
            Ok::<_, DbErr>((outbox::head(snapshot)?, page))
        })
        .await
        .map_err(|error| refuse(500, error.to_string()))?;
    let mut bytes = 0;
    let fitting = events
        .iter()
        .take_while(|row| {
            bytes += json_bytes(row);
            bytes <= EVENTS_BYTES_MAX
        })
        .count();
    events.truncate(fitting);
    Ok(EventsAnswer {
        epoch: db.epoch().to_string(),
        head,
        events,
    })
}

/// How large an event is as JSON, at most: base64 makes 4 bytes of 3, an escape 6 of 1.
fn json_bytes(row: &outbox::Row) -> usize {
    const NAMES_AND_NUMBERS: usize = 300;
    row.payload.len().div_ceil(3) * 4 + 6 * (row.key.len() + row.subject.len()) + NAMES_AND_NUMBERS
}
