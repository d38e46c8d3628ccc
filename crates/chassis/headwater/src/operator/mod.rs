//! Admin endpoints on the NATS Services API. `nats micro ls` and `nats micro info` show them, the
//! CLI calls them, and so do projections whose stream misses events.
//!
//! | subject | request | answer |
//! | --- | --- | --- |
//! | `headwater.<service>.status` | [`StatusRequest`] | [`StatusAnswer`] |
//! | `headwater.<service>.events` | [`EventsRequest`] | [`EventsAnswer`] |
//! | `headwater.<service>.dead-letters.list` | [`ListRequest`] | [`ListAnswer`] |
//! | `headwater.<service>.dead-letters.show` | [`ShowRequest`] | [`Letter`] |
//! | `headwater.<service>.dead-letters.retry` | [`RetryRequest`] | [`RetryAnswer`] |
//! | `headwater.<service>.dead-letters.discard` | [`DiscardRequest`] | [`DiscardAnswer`] or [`DiscardManyAnswer`] |
//! | `headwater.<service>.dead-letters.discarded` | [`ListRequest`] | [`ListAnswer`] |
//! | `headwater.<service>.projections.pause` | [`PauseRequest`] | [`ProjectionStatus`] |
//! | `headwater.<service>.projections.resume` | [`ResumeRequest`] | [`ProjectionStatus`] |
//! | `headwater.<service>.rebuild` | [`RebuildRequest`] | [`RebuildStatus`] |
//! | `headwater.<service>.verify` | [`RebuildRequest`] | [`RebuildStatus`] |
//! | `headwater.<service>.replay` | [`ReplayRequest`] | [`RebuildStatus`] |
//! | `headwater.<service>.fold` | [`RebuildRequest`] | [`RebuildStatus`] |
//! | `headwater.<service>.fold.stop` | [`RebuildRequest`] | [`RebuildStatus`] |
//! | `headwater.<service>.backup` | [`BackupRequest`] | [`BackupStatus`] |
//! | `headwater.<service>.backup.status` | [`BackupRequest`] | [`BackupStatus`] |
//! | `headwater.<service>.backup.stop` | [`BackupRequest`] | [`BackupStatus`] |
//!
//! All are JSON: `nats request headwater.orders.events '{"from":10,"limit":2}'`. An empty request
//! means `{}`. A service without a database has `status` only.

mod applied;
mod backup;
mod dead_letter;
mod events;
mod projections;
pub mod registry;
mod reply;
mod status;

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, ensure};
use async_nats::HeaderMap;
use async_nats::service::{self, ServiceExt as _};
use futures_util::StreamExt as _;
use headwater_nats::bus::{self, Bus};
use headwater_projection::dead_letter::letters::Table;
use headwater_rebuild::Task;
use headwater_store::Database;
use headwater_telemetry::Health;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::operator::backup::Backups;
use crate::operator::registry::ProjectionHandle;
pub use crate::operator::registry::ProjectionRegistry;
use crate::operator::reply::{Error, fit, json, read, refuse};
use crate::request_reply;
use crate::request_reply::answering::Questions;
pub use headwater_nats::control::Endpoint;
pub use headwater_nats::control::{BackupCopy, BackupRequest, BackupState, BackupStatus};
pub use headwater_nats::control::{
    DISCARD_MAX, DiscardAnswer, DiscardManyAnswer, DiscardRequest, Filter, InOutbox, Letter,
    ListAnswer, ListRequest, RetryAnswer, RetryRequest, ShowRequest,
};
pub use headwater_nats::control::{
    Difference, Differences, RebuildPurpose, RebuildRequest, RebuildState, RebuildStatus,
    ReplayRequest, Side,
};
pub use headwater_nats::control::{EventsAnswer, EventsRequest, fetch_events};
pub use headwater_nats::control::{PauseRequest, ResumeRequest};
pub use headwater_nats::control::{ProjectionStatus, SourceStatus, StatusAnswer, StatusRequest};

/// How many requests to one endpoint are answered concurrently; further ones wait at its
/// subscription. The limit is per endpoint, so a slow endpoint delays no other.
const AT_ONCE: usize = 2;

/// Offers the service on the NATS Services API until `stop`: the `admin` endpoints for operators,
/// and the `questions` of other services.
///
/// # Errors
/// [`Error::Operator`](crate::Error::Operator): the connection was closed for good.
pub async fn serve(
    admin: AdminEndpoints,
    bus: Bus,
    questions: Questions,
    stop: CancellationToken,
) -> Result<(), crate::error::Error> {
    let served = serve_all(admin, bus, questions, stop).await;
    served.map_err(|error| crate::error::Error::Operator(error.into()))
}

async fn serve_all(
    admin: AdminEndpoints,
    bus: Bus,
    questions: Questions,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let name = admin.service;
    let service = bus
        .client
        .service_builder()
        .description(format!(
            "Headwater service {name}: operator endpoints below headwater.{name}, and answers for other services"
        ))
        .metadata(admin.metadata())
        .start(name, env!("CARGO_PKG_VERSION"))
        .await
        .map_err(|error| anyhow!(error))
        .context("offer the service on the bus")?;
    // The questions come first: once an admin endpoint answers, the questions are offered too.
    let asked = questions.offer(&service).await?;
    let endpoints = admin.offer(&service).await?;
    let answering = async {
        request_reply::serve(asked, &bus, stop.clone()).await;
        Ok(())
    };
    let noting = admin.note_times();
    let admin = Arc::new(admin);
    let serving = async {
        tokio::try_join!(admin.serve(endpoints, &bus, stop.clone()), answering)?;
        Ok(())
    };
    tokio::select! {
        served = serving => served,
        () = noting => Ok(()),
    }
}

/// The endpoints, each with its requests.
type Offered = Vec<(Endpoint, service::endpoint::Endpoint)>;

/// The admin endpoints of a service.
#[derive(Debug)]
pub struct AdminEndpoints {
    service: &'static str,
    health: Health,
    /// The database, its projections and its backups, if the service has a database.
    kept: Option<(Database, ProjectionRegistry, Backups)>,
}

impl AdminEndpoints {
    /// The admin endpoints of a service without a database.
    pub fn new(service: &'static str, health: Health) -> Self {
        Self {
            service,
            health,
            kept: None,
        }
    }

    /// Adds the service's database and its projections.
    #[must_use]
    pub fn with_database(self, db: Database, registry: ProjectionRegistry) -> Self {
        let backups = Backups::of(&db);
        Self {
            kept: Some((db, registry, backups)),
            ..self
        }
    }

    /// Notes when its projections apply events. Does not end.
    fn note_times(&self) -> impl Future<Output = ()> + use<> {
        let kept = self.kept.as_ref();
        let kept = kept.map(|(db, registry, _)| (db.clone(), registry.clone()));
        async move {
            if let Some((db, registry)) = kept {
                registry.note_times(db.clock()).await;
            }
            std::future::pending::<()>().await;
        }
    }

    /// The metadata of the service itself in `nats micro info`.
    fn metadata(&self) -> HashMap<String, String> {
        let epoch = self.kept.as_ref().map(|(db, ..)| db.epoch());
        epoch.map_or_else(HashMap::new, |epoch| bus::metadata([("epoch", &epoch)]))
    }

    /// Offers every endpoint; `status` only, if the service has no database.
    async fn offer(&self, service: &service::Service) -> anyhow::Result<Offered> {
        let group = service.group(format!("headwater.{}", self.service));
        let mut offered = Offered::new();
        for endpoint in Endpoint::ALL {
            if endpoint == Endpoint::Status || self.kept.is_some() {
                let builder = group.endpoint_builder().metadata(bus::metadata([
                    ("description", endpoint.description()),
                    ("request", endpoint.example()),
                    ("format", "json"),
                ]));
                let requests = bus::offer(builder, endpoint.name()).await?;
                offered.push((endpoint, requests));
            }
        }
        Ok(offered)
    }

    /// Answers each endpoint's requests until `stop`, then finishes the answers in progress.
    async fn serve(
        self: Arc<Self>,
        offered: Offered,
        bus: &Bus,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let mut answering = JoinSet::new();
        for (endpoint, requests) in offered {
            let (admin, bus) = (Arc::clone(&self), bus.clone());
            let requests = requests.take_until(stop.clone().cancelled_owned());
            answering.spawn(requests.for_each_concurrent(AT_ONCE, move |request| {
                Arc::clone(&admin).respond(endpoint, request, bus.clone())
            }));
        }
        while let Some(ended) = answering.join_next().await {
            ended.context("answer operators")?;
            ensure!(stop.is_cancelled(), "an operator endpoint was closed");
        }
        if let Some((.., backups)) = &self.kept {
            backups.end().await;
        }
        Ok(())
    }

    async fn respond(self: Arc<Self>, endpoint: Endpoint, request: service::Request, bus: Bus) {
        let payload = &request.message.payload;
        let answer = self.answer(endpoint, payload, bus.reply_max()).await;
        bus.respond(&request, answer, HeaderMap::new()).await;
    }

    /// The answer to a request. An answer that can be shortened has at most `bytes_max` bytes.
    async fn answer(
        &self,
        endpoint: Endpoint,
        payload: &[u8],
        bytes_max: usize,
    ) -> Result<Vec<u8>, Error> {
        let (service, health) = (self.service, &self.health);
        let asked = Asked {
            endpoint,
            payload,
            bytes_max,
        };
        match (&self.kept, endpoint) {
            (Some((db, registry, backups)), _) => asked.answer(db, registry, backups, health).await,
            (None, Endpoint::Status) => json(&status::without_database(service, health)),
            (None, other) => Err(refuse(404, format!("{service} has no {}", other.name()))),
        }
    }
}

/// A request, and the size limit of its answer.
struct Asked<'a> {
    endpoint: Endpoint,
    payload: &'a [u8],
    bytes_max: usize,
}

impl Asked<'_> {
    async fn answer(
        &self,
        db: &Database,
        registry: &ProjectionRegistry,
        backups: &Backups,
        health: &Health,
    ) -> Result<Vec<u8>, Error> {
        let bytes_max = self.bytes_max;
        match self.endpoint {
            Endpoint::Status => json(&status::of(db, health, registry, self.read()?).await?),
            Endpoint::Events => events::page(db, self.read()?, bytes_max).await,
            Endpoint::DeadLettersList => {
                dead_letter::page(db, Table::Dead, self.read()?, bytes_max).await
            }
            Endpoint::DeadLettersDiscarded => {
                dead_letter::page(db, Table::Discarded, self.read()?, bytes_max).await
            }
            Endpoint::DeadLettersShow => {
                dead_letter::show(db, registry, self.read()?, bytes_max).await
            }
            Endpoint::DeadLettersRetry => {
                let mut answer = dead_letter::retry(db, registry, self.read()?).await?;
                fit(&mut answer, bytes_max, 0, |answer| &mut answer.failed)
            }
            Endpoint::DeadLettersDiscard => self.discard(db, registry).await,
            Endpoint::ProjectionsPause => {
                json(&projections::pause(db, registry, self.read()?).await?)
            }
            Endpoint::ProjectionsResume => {
                json(&projections::resume(db, registry, self.read()?).await?)
            }
            Endpoint::Rebuild => {
                self.rebuild(db, registry, |handle, _| handle.begin(Task::Rebuild))
            }
            Endpoint::Verify => self.rebuild(db, registry, |handle, is_partial| {
                handle.begin(Task::Verify { is_partial })
            }),
            Endpoint::Replay => {
                let event: ReplayRequest = self.read()?;
                let handle = registry.find(db, event.projection.as_deref())?;
                self.status(handle.begin(Task::Replay(event))?)
            }
            Endpoint::Fold => {
                self.rebuild(db, registry, |handle, _| Ok(handle.rebuild()?.status()))
            }
            Endpoint::FoldStop => {
                self.rebuild(db, registry, |handle, _| Ok(handle.rebuild()?.stop()))
            }
            Endpoint::Backup => self.backup(|| backups.begin()),
            Endpoint::BackupStatus => self.backup(|| backups.status()),
            Endpoint::BackupStop => self.backup(|| backups.stop()),
        }
    }

    fn read<R: DeserializeOwned>(&self) -> Result<R, Error> {
        read(self.endpoint, self.payload)
    }

    async fn discard(
        &self,
        db: &Database,
        registry: &ProjectionRegistry,
    ) -> Result<Vec<u8>, Error> {
        let DiscardRequest { id, ids, reason } = self.read()?;
        match id {
            Some(id) if ids.is_empty() => {
                let mut answer = dead_letter::discard(db, registry, id, reason).await?;
                fit(&mut answer, self.bytes_max, 0, |answer| {
                    &mut answer.retried.failed
                })
            }
            None if !ids.is_empty() => {
                json(&dead_letter::discard_many(db, registry, ids, reason).await?)
            }
            _ => Err(refuse(400, format!("send {}", self.endpoint.example()))),
        }
    }

    fn backup(&self, act: impl FnOnce() -> Result<BackupStatus, Error>) -> Result<Vec<u8>, Error> {
        let BackupRequest {} = self.read()?;
        json(&act()?)
    }

    /// Runs `act` on the projection that the request names; returns the status of its rebuild.
    fn rebuild(
        &self,
        db: &Database,
        registry: &ProjectionRegistry,
        act: impl FnOnce(&ProjectionHandle, bool) -> Result<RebuildStatus, Error>,
    ) -> Result<Vec<u8>, Error> {
        let request: RebuildRequest = self.read()?;
        let handle = registry.find(db, request.projection.as_deref())?;
        self.status(act(handle, request.is_partial)?)
    }

    /// The status of a rebuild as JSON, with as many differing rows as fit.
    fn status(&self, mut status: RebuildStatus) -> Result<Vec<u8>, Error> {
        let Some(mut differences) = status.differences.take() else {
            return json(&status);
        };
        let bytes_max = self.bytes_max.saturating_sub(json(&status)?.len());
        fit(&mut differences, bytes_max, 0, |found| &mut found.rows)?;
        status.differences = Some(differences);
        json(&status)
    }
}
