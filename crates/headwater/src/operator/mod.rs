//! Operator endpoints on the NATS Services API: what `nats micro ls` and `nats micro info` show,
//! and what projections ask for when their stream misses events.
//!
//! | subject | request | answer |
//! | --- | --- | --- |
//! | `headwater.<service>.status` | empty | [`StatusAnswer`] |
//! | `headwater.<service>.events` | [`EventsRequest`] | [`EventsAnswer`] |
//!
//! All are JSON, made to be read: `nats request headwater.orders.events '{"from":10,"limit":2}'`.

mod dead_letter;
mod fold;

pub use dead_letter::{
    DiscardAnswer, DiscardRequest, Letter, ListAnswer, ListRequest, RetryAnswer, RetryRequest,
    ShowRequest,
};
pub use fold::{Difference, Differences, FoldState, FoldStatus, Side, Then};

use std::collections::BTreeMap;

use anyhow::{Context as _, anyhow};
use async_nats::service::{self, ServiceExt as _};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::database::Database;
use crate::health::{Health, State};
use crate::outbox;
use crate::position::Positions;

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

/// How a service is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// The service.
    pub service: String,
    /// The life of its database.
    pub epoch: String,
    /// The newest position in its outbox.
    pub head: u64,
    /// Its parts, as `/readyz?verbose` has them.
    pub parts: BTreeMap<String, State>,
    /// What it folds from others' events.
    #[serde(default)]
    pub projections: Vec<ProjectionStatus>,
}

/// How a projection is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProjectionStatus {
    /// Its name.
    pub name: String,
    /// The version of its tables.
    pub version: u32,
    /// How far it is in each of its sources.
    pub positions: Positions,
    /// Events that it could not apply, and those that wait behind them.
    pub dead_letters: u64,
    /// Whether its tables are a read store that can be folded anew beside the one that serves.
    pub can_rebuild: bool,
}

/// Answers operators until `stop`.
///
/// # Errors
/// The connection was closed for good.
pub async fn serve(
    db: Database,
    bus: Bus,
    health: Health,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let owner = db.owner().to_owned();
    let service = bus
        .client
        .service_builder()
        .description(format!("Headwater service {owner}"))
        .start(&owner, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|error| anyhow!(error))
        .context("offer the operator endpoints")?;
    let group = service.group(format!("headwater.{owner}"));
    let endpoint = |name: &'static str| {
        let group = &group;
        async move {
            group
                .endpoint(name)
                .await
                .map_err(|error| anyhow!(error))
                .with_context(|| format!("offer the endpoint {name}"))
        }
    };
    let mut status = endpoint("status").await?;
    let mut events = endpoint("events").await?;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(request) = status.next() => {
                answer(&request, Ok(status_of(&db, &health))).await;
            }
            Some(request) = events.next() => {
                let page = events_of(&db, &request.message.payload).await;
                answer(&request, page).await;
            }
            else => anyhow::bail!("the operator endpoints were closed"),
        }
    }
}

/// Asks the endpoint of a service.
pub(crate) async fn ask<A: for<'de> Deserialize<'de>>(
    bus: &Bus,
    service: &str,
    endpoint: &str,
    request: &impl Serialize,
) -> anyhow::Result<A> {
    let subject = format!("headwater.{service}.{endpoint}");
    let payload = serde_json::to_vec(request).context("write the request")?;
    let answer = bus.client.request(subject, payload.into()).await?;
    let refusal = answer
        .headers
        .as_ref()
        .and_then(|headers| headers.get(service::NATS_SERVICE_ERROR));
    if let Some(refusal) = refusal {
        anyhow::bail!("{refusal}");
    }
    serde_json::from_slice(&answer.payload).context("read the answer")
}

fn status_of(db: &Database, health: &Health) -> StatusAnswer {
    StatusAnswer {
        service: db.owner().to_owned(),
        epoch: db.epoch().to_owned(),
        head: *db.head().borrow(),
        parts: health.parts(),
        projections: Vec::new(),
    }
}

async fn events_of(db: &Database, payload: &[u8]) -> Result<EventsAnswer, service::error::Error> {
    let request: EventsRequest = serde_json::from_slice(payload)
        .map_err(|error| refuse(400, format!("send {{\"from\":1,\"limit\":10}}: {error}")))?;
    if let Some(epoch) = request.epoch.filter(|epoch| epoch != db.epoch()) {
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
    let mut events = db
        .read(move |snapshot| {
            outbox::page_within(snapshot, request.from, limit, EVENTS_BYTES_MAX as u64)
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
        epoch: db.epoch().to_owned(),
        head: *db.head().borrow(),
        events,
    })
}

/// How large an event is as JSON, at most: base64 makes 4 bytes of 3, an escape 6 of 1.
fn json_bytes(row: &outbox::Row) -> usize {
    const NAMES_AND_NUMBERS: usize = 300;
    row.payload.len().div_ceil(3) * 4 + 6 * (row.key.len() + row.subject.len()) + NAMES_AND_NUMBERS
}

fn refuse(code: usize, status: String) -> service::error::Error {
    service::error::Error { status, code }
}

async fn answer(request: &service::Request, answer: Result<impl Serialize, service::error::Error>) {
    let answer = answer.and_then(|answer| {
        serde_json::to_vec(&answer)
            .map(Into::into)
            .map_err(|error| refuse(500, error.to_string()))
    });
    if let Err(error) = request.respond(answer).await {
        tracing::debug!(%error, "answer an operator");
    }
}
