//! Rebuilding read stores: another version, a worse version, discarded letters.

#![expect(
    clippy::disallowed_methods,
    reason = "the test owns its background tasks"
)]

use std::time::Duration;

use broker::Broker;
use headwater::database::{self, Database, Tx};
use headwater::http::About;
use headwater::{
    ApplyError, Bus, Config, Envelope, Health, Process, Projection, Service, bus as nats, telemetry,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::support::{
    MIGRATIONS, PATIENCE, Readings, Tasks, about, append, broker, bus, eventually, eventually_says,
    folder, http_config, integers, keep_reading, make_soft_stream, open, read, readings, reads,
    relaying,
};

/// Doubles the readings: a changed `apply` of the same events.
#[derive(Debug)]
pub(crate) struct Doubled;

impl Projection for Doubled {
    const NAME: &'static str = Readings::NAME;
    const VERSION: u32 = Readings::VERSION + 1;
    const SOURCES: &'static [&'static str] = Readings::SOURCES;

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let read: crate::support::SensorRead = event.decode()?;
            keep_reading(tx, &read.sensor, read.value * 2)?;
        }
        Ok(())
    }
}

/// A version that cannot apply events that the former version could.
#[derive(Debug)]
struct Worse;

impl Projection for Worse {
    const NAME: &'static str = Readings::NAME;
    const VERSION: u32 = Readings::VERSION + 1;
    const SOURCES: &'static [&'static str] = Readings::SOURCES;

    fn apply(&self, _: &Tx, _: &[Envelope]) -> Result<(), ApplyError> {
        Err(ApplyError::Poison("a bug in the new version".to_owned()))
    }
}

/// A source with its stream, and a folder in which services run one after another.
pub(crate) struct Place {
    pub(crate) source: Database,
    pub(crate) bus: Bus,
    pub(crate) relay: Tasks,
    broker: Broker,
    folder: TempDir,
}

impl Place {
    pub(crate) async fn start() -> Self {
        let (folder, broker) = (folder(), broker());
        let source = open(&folder, "sensors").await;
        let bus = bus(&broker, "world").await;
        Self::over(folder, broker, source, bus)
    }

    /// With a stream whose events may be deleted.
    pub(crate) async fn with_soft_stream() -> Self {
        let (folder, broker) = (folder(), broker());
        let source = open(&folder, "sensors").await;
        let bus = bus(&broker, "world").await;
        make_soft_stream(&bus, "sensors").await;
        Self::over(folder, broker, source, bus)
    }

    fn over(folder: TempDir, broker: Broker, source: Database, bus: Bus) -> Self {
        let mut relay = relaying(&source, &bus);
        relay.operator(&source, &bus);
        Self {
            source,
            bus,
            relay,
            broker,
            folder,
        }
    }

    /// Stops the source: its relay and its admin endpoints.
    pub(crate) async fn stop_source(&mut self) {
        let running = std::mem::replace(&mut self.relay, Tasks::none());
        running.stop().await;
    }

    /// Starts the source again: its relay and its admin endpoints.
    pub(crate) fn start_source(&mut self) {
        self.relay = relaying(&self.source, &self.bus);
        self.relay.operator(&self.source, &self.bus);
    }

    /// The store files of the house.
    pub(crate) fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut stores: Vec<_> = names
            .filter(|name| {
                let is_other =
                    ["-wal", "-shm", ".lock", "-verified"].map(|end| name.ends_with(end));
                name.starts_with("house") && !is_other.contains(&true)
            })
            .collect();
        stores.sort();
        stores
    }

    /// A service whose database is a read store.
    pub(crate) async fn service<P: Projection>(&self, projection: P) -> House {
        let stop = CancellationToken::new();
        let process = Process::on_free_ports(stop.clone()).await.unwrap();
        let started = Service::start_read_store(HOUSE, MIGRATIONS, self.config(), process).await;
        House::project(started.unwrap(), projection, stop).await
    }

    /// A service whose database also holds other data.
    pub(crate) async fn owner<P: Projection>(&self, projection: P) -> House {
        let stop = CancellationToken::new();
        let process = Process::on_free_ports(stop.clone()).await.unwrap();
        let started = Service::start(HOUSE, MIGRATIONS, self.config(), process).await;
        House::project(started.unwrap(), projection, stop).await
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            http: http_config(),
            database: database::Config::at(self.folder.path().join("house.db")),
            nats: nats::Config::at(self.broker.url()),
            telemetry: telemetry::Config {
                filter: "off".to_owned(),
                filter_file: None,
                format: telemetry::Format::Json,
                traces: telemetry::TraceConfig::default(),
            },
            drain_timeout: Duration::from_secs(10),
        }
    }

    pub(crate) async fn ask(&self, endpoint: &str, request: Value) -> Result<Value, String> {
        let subject = format!("headwater.house.{endpoint}");
        let request = self
            .bus
            .client()
            .request(subject, request.to_string().into());
        let answer = request.await.map_err(|error| error.to_string())?;
        serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())
    }

    /// The refusal of an endpoint: its code and reason.
    pub(crate) async fn refusal(&self, endpoint: &str, request: Value) -> String {
        let subject = format!("headwater.house.{endpoint}");
        let payload = request.to_string().into();
        let answer = self.bus.client().request(subject, payload).await.unwrap();
        let headers = answer.headers.unwrap();
        let header = |name| headers.get(name).unwrap().as_str().to_owned();
        let (code, why) = (
            header("Nats-Service-Error-Code"),
            header("Nats-Service-Error"),
        );
        format!("{code}: {why}")
    }

    pub(crate) async fn eventually_rebuilt(&self, state: &str) -> Value {
        eventually(&format!("the rebuild is {state}"), async || {
            let status = self.ask("fold", json!({})).await?;
            if status["state"] == state {
                Ok(status)
            } else {
                Err(status.to_string())
            }
        })
        .await
    }
}

pub(crate) const HOUSE: About = about("house");

pub(crate) struct House {
    pub(crate) db: Database,
    pub(crate) health: Health,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<headwater::Result>,
}

impl House {
    async fn project<P: Projection>(
        mut service: Service,
        projection: P,
        stop: CancellationToken,
    ) -> Self {
        service.project(projection).await.unwrap();
        Self::serve(service, stop)
    }

    /// Serves a service that is assembled.
    pub(crate) fn serve(service: Service, stop: CancellationToken) -> Self {
        let (db, health) = (service.db.clone(), service.health.clone());
        let task = tokio::task::spawn(service.serve(OpenApiRouter::new()));
        Self {
            db,
            health,
            stop,
            task,
        }
    }

    pub(crate) async fn eventually(&self, wanted: &[i64]) {
        crate::support::eventually_readings(&self.db, wanted).await;
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Waits until it ends by itself; returns why.
    pub(crate) async fn failed(self) -> headwater::Error {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("it ends by itself").unwrap().unwrap_err()
    }

    /// Ends it in the middle of what it does.
    pub(crate) async fn abort(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        let path = self.db.path();
        drop(self.db);
        // Its tasks are dropped one after another.
        eventually("the database is free", async || {
            database::Lock::take(&path, database::Kind::Own).map_err(|error| error.to_string())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_version_is_folded_beside_the_old_one_which_serves_until_then() {
    let place = Place::start().await;
    append(&place.source, reads(1..=500)).await;
    let old: Vec<i64> = (1..=500).collect();
    let new: Vec<i64> = old.iter().map(|value| value * 2).collect();
    let house = place.service(Readings).await;
    house.eventually(&old).await;
    house.stop().await;

    let house = place.service(Doubled).await;
    eventually("the new version serves", async || {
        let seen = readings(&house.db).await;
        if seen == new {
            return Ok(());
        }
        assert_eq!(seen, old, "all of the old or all of the new");
        Err("old")
    })
    .await;
    let status = place.eventually_rebuilt("done").await;
    assert!(
        status["reason"].as_str().unwrap().contains("version 1"),
        "{status}"
    );
    append(&place.source, reads(501..=501)).await;
    house.eventually(&[new, vec![1002]].concat()).await;
    house.stop().await;

    let house = place.service(Doubled).await;
    eventually_says(&house.health, "readings store", "house.db.1 serves").await;
    assert_eq!(readings(&house.db).await.len(), 501, "once is enough");
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_that_cannot_apply_what_the_old_one_has_is_not_swapped_in() {
    let place = Place::start().await;
    append(&place.source, reads(1..=3)).await;
    let house = place.service(Readings).await;
    house.eventually(&[1, 2, 3]).await;
    house.stop().await;

    let house = place.service(Worse).await;
    let status = place.eventually_rebuilt("failed").await;
    let why = status["message"].as_str().unwrap();
    assert!(
        why.contains("cannot apply sensors.v1.read.") && why.contains("its log has the reason"),
        "{why}"
    );
    assert!(
        !why.contains("a bug in the new version"),
        "a reason may quote personal data: {why}"
    );
    eventually_says(&house.health, "readings store", "the live store stays").await;
    assert_eq!(readings(&house.db).await, [1, 2, 3]);
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_leaves_out_what_was_discarded_and_parks_the_rest_again() {
    let place = Place::start().await;
    let events = vec![read("a", -1), read("a", 2), read("b", -1), read("c", 3)];
    append(&place.source, events).await;
    let house = place.service(Readings).await;
    house.eventually(&[3]).await;
    let first =
        place.ask("dead-letters.list", json!({})).await.unwrap()["letters"][0]["id"].clone();
    let reason = json!({"id": first, "reason": "a broken sensor"});
    place.ask("dead-letters.discard", reason).await.unwrap();
    house.eventually(&[3, 2]).await;

    place.ask("rebuild", json!({})).await.unwrap();
    let status = place.eventually_rebuilt("done").await;
    house.eventually(&[2, 3]).await;
    let letters = place.ask("dead-letters.list", json!({})).await.unwrap();
    assert_eq!(letters["total"], 1, "{letters}");
    assert_eq!(letters["letters"][0]["lane"], "key b");
    let kept = place
        .ask("dead-letters.discarded", json!({}))
        .await
        .unwrap();
    assert_eq!(kept["letters"][0]["discarded_because"], "a broken sensor");
    assert!(
        status["differences"]["count"].as_u64().is_some(),
        "{status}"
    );
    house.stop().await;
    place.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fold_leaves_no_consumer_and_no_file_behind_and_only_one_runs_at_a_time() {
    let place = Place::start().await;
    append(&place.source, reads(1..=50)).await;
    let house = place.service(Readings).await;
    house.eventually(&(1..=50).collect::<Vec<_>>()).await;
    for endpoint in ["verify", "rebuild", "verify"] {
        place.ask(endpoint, json!({})).await.unwrap();
        let status = place.eventually_rebuilt("done").await;
        assert_eq!(status["differences"]["count"], 0, "{status}");
    }
    let jetstream = async_nats::jetstream::new(place.bus.client().clone());
    let stream = jetstream.get_stream("SENSORS").await.unwrap();
    assert_eq!(stream.cached_info().state.consumer_count, 1);
    assert_eq!(place.files(), ["house.db", "house.db.1"]);
    house.stop().await;
    place.relay.stop().await;
}

/// The reported positions are those of the comparison, not of an earlier moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_fold_says_where_both_stores_stood_when_they_were_compared() {
    let place = Place::start().await;
    append(&place.source, reads(1..=50)).await;
    let house = place.service(Readings).await;
    house.eventually(&(1..=50).collect::<Vec<_>>()).await;
    let source = place.source.clone();
    let writing = tokio::task::spawn(async move {
        loop {
            append(&source, reads(9..=9)).await;
        }
    });
    for endpoint in ["verify", "rebuild", "verify"] {
        place.ask(endpoint, json!({})).await.unwrap();
        let status = place.eventually_rebuilt("done").await;
        assert_eq!(status["positions"], status["live"], "{endpoint}: {status}");
        let at = status["positions"]["sensors"].as_u64().unwrap();
        assert!(at >= 50, "{endpoint}: {status}");
    }
    writing.abort();
    house.stop().await;
    place.relay.stop().await;
}

/// An operator who deletes the store does not trust it. After a rebuild, its name is a link.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_deleted_after_a_rebuild_is_folded_from_the_first_event() {
    let place = Place::start().await;
    append(&place.source, reads(1..=3)).await;
    let house = place.service(Readings).await;
    house.eventually(&[1, 2, 3]).await;
    place.ask("rebuild", json!({})).await.unwrap();
    place.eventually_rebuilt("done").await;
    house.stop().await;
    let path = place.folder.path().join("house.db");
    let store = rusqlite::Connection::open(&path).unwrap();
    store.execute("DELETE FROM reading", ()).unwrap();
    drop(store);
    std::fs::remove_file(&path).unwrap();

    let house = place.service(Readings).await;
    house.eventually(&[1, 2, 3]).await;
    place.eventually_rebuilt("idle").await;
    assert!(!path.is_symlink(), "no other file was used");
    house.stop().await;
    place.relay.stop().await;
}

/// The file is swapped while a read runs: the read ends on the old file.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_under_way_ends_on_the_store_that_it_began_on() {
    let place = Place::start().await;
    append(&place.source, reads(1..=3)).await;
    let house = place.service(Readings).await;
    house.eventually(&[1, 2, 3]).await;
    let (open, shut) = crate::support::latch();
    let (started, running) = tokio::sync::oneshot::channel();
    let db = house.db.clone();
    let slow = tokio::task::spawn(async move {
        db.read(move |snapshot| {
            let before = integers(snapshot, "SELECT count(*) AS n FROM reading")?;
            started.send(()).unwrap();
            shut.wait();
            Ok::<_, sea_orm::DbErr>((
                before,
                integers(snapshot, "SELECT count(*) AS n FROM reading")?,
            ))
        })
        .await
    });
    running.await.unwrap();
    place.ask("rebuild", json!({})).await.unwrap();
    eventually("the new store serves", async || {
        append(&place.source, reads(9..=9)).await;
        let files = std::fs::read_link(place.folder.path().join("house.db"));
        files.map_err(|error| error.to_string())
    })
    .await;
    open.send(()).unwrap();
    assert_eq!(slow.await.unwrap().unwrap(), (vec![3], vec![3]));
    place.eventually_rebuilt("done").await;
    house.stop().await;
    place.relay.stop().await;
}
