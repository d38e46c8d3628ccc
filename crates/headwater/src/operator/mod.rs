//! Operator endpoints on the NATS Services API: what `nats micro ls` and `nats micro info` show,
//! what the CLI asks, and what projections ask for when their stream misses events.
//!
//! | subject | request | answer |
//! | --- | --- | --- |
//! | `headwater.<service>.status` | empty | [`StatusAnswer`] |
//! | `headwater.<service>.events` | [`EventsRequest`] | [`EventsAnswer`] |
//! | `headwater.<service>.dead-letters.list` | [`ListRequest`] | [`ListAnswer`] |
//! | `headwater.<service>.dead-letters.show` | [`ShowRequest`] | [`Letter`] |
//! | `headwater.<service>.dead-letters.retry` | [`RetryRequest`] | [`RetryAnswer`] |
//! | `headwater.<service>.dead-letters.discard` | [`DiscardRequest`] | [`DiscardAnswer`] |
//! | `headwater.<service>.dead-letters.discarded` | [`ListRequest`] | [`ListAnswer`] |
//! | `headwater.<service>.projections.pause` | [`PauseRequest`] | [`ProjectionStatus`] |
//! | `headwater.<service>.projections.resume` | [`ResumeRequest`] | [`ProjectionStatus`] |
//! | `headwater.<service>.rebuild` | empty | [`FoldStatus`] |
//! | `headwater.<service>.verify` | empty | [`FoldStatus`] |
//! | `headwater.<service>.fold` | empty | [`FoldStatus`] |
//!
//! All are JSON, made to be read: `nats request headwater.orders.events '{"from":10,"limit":2}'`.
//! An empty request stands for one without any wishes. A service without a database has `status`
//! alone.

mod dead_letter;
mod events;
mod fold;
mod projections;
mod status;
mod tools;

use std::collections::HashMap;

use anyhow::{Context as _, anyhow};
use async_nats::service::{self, ServiceExt as _};
use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::bus::{self, Bus};
use crate::database::Database;
use crate::health::Health;
use crate::inquiry::{self, Questions};

pub use dead_letter::{
    DiscardAnswer, DiscardRequest, Letter, ListAnswer, ListRequest, RetryAnswer, RetryRequest,
    ShowRequest,
};
pub use events::{EventsAnswer, EventsRequest};
pub use fold::{Difference, Differences, FoldState, FoldStatus, Side, Then};
pub use projections::{PauseRequest, ResumeRequest};
pub use status::{ProjectionStatus, StatusAnswer};
pub use tools::Tools;

/// An endpoint, as `nats micro info` explains it.
struct Endpoint {
    /// As it follows `headwater.<service>.`
    name: &'static str,
    does: &'static str,
    /// What to send, for example.
    request: &'static str,
}

/// What every service has.
const STATUS: Endpoint = Endpoint {
    name: "status",
    does: "how the service and its parts are doing",
    request: "",
};

/// What one with a database has besides.
const ENDPOINTS: [Endpoint; 11] = [
    Endpoint {
        name: "events",
        does: "events of the outbox by position",
        request: events::EXAMPLE,
    },
    Endpoint {
        name: "dead-letters.list",
        does: "events that could not be applied, the oldest first",
        request: dead_letter::PAGE_EXAMPLE,
    },
    Endpoint {
        name: "dead-letters.show",
        does: "one of them with its payload",
        request: dead_letter::SHOW_EXAMPLE,
    },
    Endpoint {
        name: "dead-letters.retry",
        does: "tries them again, with those that wait behind",
        request: dead_letter::RETRY_EXAMPLE,
    },
    Endpoint {
        name: "dead-letters.discard",
        does: "gives one up for good, and tries those that wait behind it",
        request: dead_letter::DISCARD_EXAMPLE,
    },
    Endpoint {
        name: "dead-letters.discarded",
        does: "those that were given up",
        request: dead_letter::PAGE_EXAMPLE,
    },
    Endpoint {
        name: "projections.pause",
        does: "lets a projection stand still until it is resumed",
        request: projections::PAUSE_EXAMPLE,
    },
    Endpoint {
        name: "projections.resume",
        does: "lets a projection go on",
        request: projections::RESUME_EXAMPLE,
    },
    Endpoint {
        name: "rebuild",
        does: "begins to fold the read store anew; the new one takes the old one's place",
        request: "",
    },
    Endpoint {
        name: "verify",
        does: "begins to fold the read store anew and to compare both",
        request: "",
    },
    Endpoint {
        name: "fold",
        does: "how far a rebuild or verify is",
        request: "",
    },
];

/// Offers the service on the NATS Services API until `stop`: answers operators at `desk`, and the
/// `questions` of other services.
///
/// # Errors
/// The connection was closed for good.
pub async fn serve(
    desk: Desk,
    bus: Bus,
    questions: Questions,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let name = desk.service;
    let service = bus
        .client
        .service_builder()
        .description(format!(
            "Headwater service {name}: for operators below headwater.{name}, for others its answers"
        ))
        .metadata(desk.metadata())
        .start(name, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|error| anyhow!(error))
        .context("offer the service on the bus")?;
    // Whoever has an answer from the desk finds the questions offered, too.
    let asked = questions.offer(&service).await?;
    let requests = desk.offer(&service).await?;
    let answering = async {
        inquiry::serve(asked, stop.clone()).await;
        Ok(())
    };
    tokio::try_join!(desk.serve(requests, stop.clone()), answering)?;
    Ok(())
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

/// A refusal, with a code as HTTP has them.
type Error = service::error::Error;

/// What operators ask, each with the name of the endpoint.
type Requests = SelectAll<BoxStream<'static, (&'static str, service::Request)>>;

/// Where operators are served.
#[derive(Debug)]
pub struct Desk {
    service: &'static str,
    health: Health,
    /// What there is to look at and to use, where the service keeps something.
    kept: Option<(Database, Tools)>,
}

impl Desk {
    /// The desk of a service without a database.
    pub fn new(service: &'static str, health: Health) -> Self {
        Self {
            service,
            health,
            kept: None,
        }
    }

    /// Adds the service's database, and what operators may do with its projections.
    #[must_use]
    pub fn with_database(self, db: Database, tools: Tools) -> Self {
        Self {
            kept: Some((db, tools)),
            ..self
        }
    }

    /// What `nats micro info` says of the service as a whole.
    fn metadata(&self) -> HashMap<String, String> {
        let epoch = self.kept.as_ref().map(|(db, _)| db.epoch());
        epoch.map_or_else(HashMap::new, |epoch| bus::metadata([("epoch", &epoch)]))
    }

    async fn offer(&self, service: &service::Service) -> anyhow::Result<Requests> {
        let group = service.group(format!("headwater.{}", self.service));
        let mut requests = Requests::new();
        let kept = self.kept.iter().flat_map(|_| &ENDPOINTS);
        for offered in [&STATUS].into_iter().chain(kept) {
            let metadata = bus::metadata([
                ("description", offered.does),
                ("request", offered.request),
                ("format", "json"),
            ]);
            let builder = group.endpoint_builder().metadata(metadata);
            let endpoint = bus::offer(builder, offered.name).await?;
            let name = offered.name;
            requests.push(endpoint.map(move |request| (name, request)).boxed());
        }
        Ok(requests)
    }

    async fn serve(&self, mut requests: Requests, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some((endpoint, request)) = requests.next() => {
                    let answer = self.answer(endpoint, &request.message.payload).await;
                    if let Err(error) = request.respond(answer.map(Into::into)).await {
                        tracing::debug!(%error, "answer an operator");
                    }
                }
                else => anyhow::bail!("the operator endpoints were closed"),
            }
        }
    }

    async fn answer(&self, endpoint: &str, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let Some((db, tools)) = &self.kept else {
            return json(&status::without_database(self.service, &self.health));
        };
        match endpoint {
            "status" => json(&status::of(db, &self.health, tools).await?),
            "events" => json(&events::page(db, read(payload, events::EXAMPLE)?).await?),
            "projections.pause" => {
                let request = read(payload, projections::PAUSE_EXAMPLE)?;
                json(&projections::pause(db, tools, request).await?)
            }
            "projections.resume" => {
                let request = read(payload, projections::RESUME_EXAMPLE)?;
                json(&projections::resume(db, tools, request).await?)
            }
            "rebuild" => json(&tools.begin(db, Then::Swap)?),
            "verify" => json(&tools.begin(db, Then::Compare)?),
            "fold" => json(&tools.fold_status(db)?),
            letters => dead_letter::answer(db, tools, letters, payload).await,
        }
    }
}

/// The request in `payload`; `example` is what one looks like.
fn read<R: DeserializeOwned>(payload: &[u8], example: &str) -> Result<R, Error> {
    let payload = if payload.trim_ascii().is_empty() {
        b"{}"
    } else {
        payload
    };
    serde_json::from_slice(payload).map_err(|error| refuse(400, format!("send {example}: {error}")))
}

fn json(answer: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(answer).map_err(|error| refuse(500, error.to_string()))
}

fn refuse(code: usize, status: String) -> Error {
    Error { status, code }
}
