//! Shared by the tests: events, a projection, an environment, and waiting.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::{HeaderMap, jetstream};
use broker::Broker;
use futures_util::{StreamExt as _, TryStreamExt as _};
use headwater::database::{self, Database, Migration, Snapshot, Tx, WriteError};
use headwater::health::State;
use headwater::http::About;
use headwater::operator::{AdminEndpoints, ProjectionRegistry};
use headwater::projection::{self, Progress, Runner};
use headwater::request_reply::Questions;
use headwater::telemetry::BoxError;
use headwater::{
    ApplyError, Bus, Clock, Envelope, Event, Health, Projection, Relay, Supervisor, bus, causes,
    outbox,
};
pub(crate) use headwater_testkit::{PATIENCE, broker, broker_with, eventually, is};
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;

/// A sensor was read.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SensorRead {
    #[prost(string, tag = "1")]
    pub(crate) sensor: String,
    #[prost(int64, tag = "2")]
    pub(crate) value: i64,
    #[prost(string, tag = "3")]
    pub(crate) note: String,
}

impl Event for SensorRead {
    const SUBJECT: &'static str = "sensors.v1.read";

    fn key(&self) -> &str {
        &self.sensor
    }
}

pub(crate) fn read(sensor: &str, value: i64) -> SensorRead {
    SensorRead {
        sensor: sensor.to_owned(),
        value,
        note: String::new(),
    }
}

/// A reading with a note of this many bytes.
pub(crate) fn large(value: i64, bytes: usize) -> SensorRead {
    SensorRead {
        note: "x".repeat(bytes),
        ..read("attic", value)
    }
}

/// A gauge was read: the event of a second source.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct GaugeRead {
    #[prost(string, tag = "1")]
    pub(crate) gauge: String,
    #[prost(int64, tag = "2")]
    pub(crate) value: i64,
}

impl Event for GaugeRead {
    const SUBJECT: &'static str = "gauges.v1.read";

    fn key(&self) -> &str {
        &self.gauge
    }
}

/// Keeps every reading in the order of application: a reading that is applied twice is there twice.
///
/// Values below zero are poison: -1 is refused, -2 panics, -3 is refused half-way.
#[derive(Debug, Default)]
pub(crate) struct Readings;

impl Projection for Readings {
    const NAME: &'static str = "readings";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["sensors"];

    fn apply(&self, tx: &Tx, events: &[Envelope]) -> Result<(), ApplyError> {
        for event in events {
            let SensorRead { sensor, value, .. } = event.decode()?;
            match value {
                -1 => return Err(ApplyError::Poison("below zero".to_owned())),
                -2 => panic!("a bug in a projection"),
                _ => keep_reading(tx, &sensor, value)?,
            }
            if value == -3 {
                return Err(ApplyError::Poison("half-way".to_owned()));
            }
        }
        Ok(())
    }

    fn key(&self, event: &Envelope) -> Option<String> {
        Some(event.decode::<SensorRead>().ok()?.sensor)
    }
}

pub(crate) fn keep_reading(tx: &Tx, sensor: &str, value: i64) -> Result<(), DbErr> {
    execute(
        tx,
        "INSERT INTO reading (sensor, value) VALUES (?, ?)",
        [sensor.into(), value.into()],
    )
}

pub(crate) const fn about(name: &'static str) -> About {
    About {
        name,
        description: "A service of a test.",
        version: "1.0.0",
        port: 0,
    }
}

pub(crate) const MIGRATIONS: &[Migration] = &[Migration::sql("0001_readings", "CREATE TABLE reading (id INTEGER PRIMARY KEY, sensor TEXT NOT NULL, value INTEGER NOT NULL);
          CREATE TABLE label (value INTEGER PRIMARY KEY);
          CREATE TABLE tag (label INTEGER NOT NULL REFERENCES label (value));
          CREATE TABLE late_tag (label INTEGER NOT NULL REFERENCES label (value) DEFERRABLE INITIALLY DEFERRED)")];

/// Runs one statement.
pub(crate) fn execute<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Result<(), DbErr> {
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        sql,
        values,
    ))
    .map(drop)
}

/// The integer `n` of each row of `sql`.
pub(crate) fn integers(db: &impl ConnectionTrait, sql: &str) -> Result<Vec<i64>, DbErr> {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement)?;
    rows.iter().map(|row| row.try_get_by("n")).collect()
}

/// The text `t` of each row of `sql`.
pub(crate) fn texts(db: &impl ConnectionTrait, sql: &str) -> Result<Vec<String>, DbErr> {
    let statement = Statement::from_string(db.get_database_backend(), sql);
    let rows = db.query_all_raw(statement)?;
    rows.iter().map(|row| row.try_get_by("t")).collect()
}

/// The values that the projection [`Readings`] has applied, in order.
pub(crate) async fn readings(db: &Database) -> Vec<i64> {
    db.read(|snapshot: &Snapshot| integers(snapshot, "SELECT value AS n FROM reading ORDER BY id"))
        .await
        .unwrap()
}

/// The dead letters as `key: reason`, in order.
pub(crate) async fn dead_letters(db: &Database) -> Vec<String> {
    db.read(|snapshot: &Snapshot| {
        let sql = "SELECT lane || ': ' || reason AS t FROM headwater_dead_letter ORDER BY id";
        texts(snapshot, sql)
    })
    .await
    .unwrap()
}

/// Opens the database of `owner` in `folder`.
pub(crate) async fn open(folder: &TempDir, owner: &'static str) -> Database {
    let config = database::Config::at(folder.path().join(format!("{owner}.db")));
    Database::open(owner, &config, MIGRATIONS, Clock::system())
        .await
        .unwrap()
}

/// Opens the restored database of `owner`. A child of another test has all locks of this process
/// from its fork to its exec, also that of the restore.
pub(crate) async fn open_restored(folder: &TempDir, owner: &'static str) -> Database {
    let config = database::Config::at(folder.path().join(format!("{owner}.db")));
    eventually("the restored database", async || {
        let opened = Database::open(owner, &config, MIGRATIONS, Clock::system()).await;
        opened.map_err(|error| causes(&error))
    })
    .await
}

/// Copies an open database, as an operator would.
pub(crate) fn backup(from: &std::path::Path, to: &std::path::Path) {
    let from = rusqlite::Connection::open(from).unwrap();
    from.execute("VACUUM INTO ?", [to.to_str().unwrap()])
        .unwrap();
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Appends events to the outbox of `db` in one transaction; returns the position of the last one.
pub(crate) async fn append<E: Event + 'static>(db: &Database, events: Vec<E>) -> u64 {
    let written = db.write(move |tx| {
        for event in &events {
            outbox::append(tx, event)?;
        }
        Ok::<_, DbErr>(())
    });
    let position = written.await.unwrap().position;
    position.map_or(0, |position| position.position)
}

/// Readings of one sensor with the values of `range`.
pub(crate) fn reads(range: impl IntoIterator<Item = i64>) -> Vec<SensorRead> {
    range
        .into_iter()
        .map(|value| read("attic", value))
        .collect()
}

/// A write whose refusal is a database error.
pub(crate) type Refused = WriteError<DbErr>;

/// Waits until the projection of `db` has applied exactly `wanted`.
pub(crate) async fn eventually_readings(db: &Database, wanted: &[i64]) {
    let what = format!("{} readings are applied", wanted.len());
    eventually(&what, async || {
        differs(&readings(db).await, wanted).map_or(Ok(()), Err)
    })
    .await;
}

/// Waits until the state of a service's component `part` contains `text`.
pub(crate) async fn eventually_says(health: &Health, part: &str, text: &str) -> State {
    eventually(&format!("{part} says `{text}`"), async || {
        let state = health.parts().get(part).cloned();
        match state {
            Some(state) if format!("{state:?}").contains(text) => Ok(state),
            other => Err(other),
        }
    })
    .await
}

pub(crate) async fn bus(broker: &Broker, name: &str) -> Bus {
    Bus::connect(name, &bus::Config::at(broker.url()))
        .await
        .unwrap()
}

/// Tasks of a service, stopped when dropped.
pub(crate) struct Tasks {
    stop: CancellationToken,
    supervisor: Supervisor,
    pub(crate) health: Health,
}

impl Tasks {
    pub(crate) fn none() -> Self {
        let stop = CancellationToken::new();
        Self {
            supervisor: Supervisor::new(stop.clone()),
            stop,
            health: Health::new(),
        }
    }

    /// Runs the relay of `db`.
    pub(crate) fn relay(&mut self, db: &Database, bus: &Bus) -> &mut Self {
        let relay = Relay::new(db.clone(), bus.clone(), self.health.clone());
        self.supervisor.spawn("relay", |stop| relay.run(stop));
        self
    }

    /// Answers operators for `db`.
    pub(crate) fn operator(&mut self, db: &Database, bus: &Bus) -> &mut Self {
        self.serve_operators(db, bus, ProjectionRegistry::default())
    }

    /// Answers operators for `db` and the projections in `registry`.
    pub(crate) fn serve_operators(
        &mut self,
        db: &Database,
        bus: &Bus,
        registry: ProjectionRegistry,
    ) -> &mut Self {
        let admin = AdminEndpoints::new(db.owner(), self.health.clone())
            .with_database(db.clone(), registry);
        self.offer(admin, bus, Questions::default())
    }

    /// Offers a service on the bus.
    pub(crate) fn offer(
        &mut self,
        admin: AdminEndpoints,
        bus: &Bus,
        questions: Questions,
    ) -> &mut Self {
        let bus = bus.clone();
        self.supervisor.spawn("operator", |stop| {
            headwater::operator::serve(admin, bus, questions, stop)
        });
        self
    }

    /// Runs a task.
    pub(crate) fn run<T, E>(
        &mut self,
        name: &'static str,
        task: impl FnOnce(CancellationToken) -> T,
    ) where
        T: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.supervisor.spawn(name, task);
    }

    /// Runs `projection` over `db`.
    pub(crate) async fn projection<P: Projection>(
        &mut self,
        projection: P,
        db: &Database,
        bus: &Bus,
    ) -> Progress {
        let config = projection::Config::of::<P>();
        let (db, bus, health) = (db.clone(), bus.clone(), self.health.clone());
        let runner = Runner::load(projection, db, bus, health, config)
            .await
            .unwrap();
        let progress = runner.progress();
        self.supervisor.spawn(P::NAME, |stop| runner.run(stop));
        progress
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.supervisor.join(PATIENCE).await.unwrap();
    }
}

/// A running relay.
pub(crate) fn relaying(db: &Database, bus: &Bus) -> Tasks {
    let mut tasks = Tasks::none();
    tasks.relay(db, bus);
    tasks
}

/// A running projection.
pub(crate) async fn projecting(db: &Database, bus: &Bus) -> Tasks {
    let mut tasks = Tasks::none();
    tasks.projection(Readings, db, bus).await;
    tasks
}

/// A source with its relay, a reader with its projection, and a broker between them.
pub(crate) struct World {
    pub(crate) relay: Tasks,
    pub(crate) reader: Tasks,
    pub(crate) source: Database,
    pub(crate) copy: Database,
    pub(crate) bus: Bus,
    pub(crate) broker: Broker,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let (folder, broker) = (folder(), broker());
        let (source, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
        let bus = bus(&broker, "world").await;
        Self {
            relay: relaying(&source, &bus),
            reader: projecting(&copy, &bus).await,
            source,
            copy,
            bus,
            broker,
            folder,
        }
    }

    /// With a stream whose events may be deleted and purged.
    pub(crate) async fn with_soft_stream() -> Self {
        Self::with_soft_stream_at(broker()).await
    }

    /// [`with_soft_stream`](Self::with_soft_stream) at this broker.
    pub(crate) async fn with_soft_stream_at(broker: Broker) -> Self {
        let folder = folder();
        let (source, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
        let bus = bus(&broker, "world").await;
        make_soft_stream(&bus, "sensors").await;
        Self {
            relay: relaying(&source, &bus),
            reader: projecting(&copy, &bus).await,
            source,
            copy,
            bus,
            broker,
            folder,
        }
    }

    /// Appends readings with the values of `range` to the source's outbox.
    pub(crate) async fn append(&self, range: impl IntoIterator<Item = i64>) -> u64 {
        append(&self.source, reads(range)).await
    }

    pub(crate) async fn start_reader(&mut self) {
        self.reader = projecting(&self.copy, &self.bus).await;
    }

    pub(crate) async fn stop_reader(&mut self) {
        std::mem::replace(&mut self.reader, Tasks::none())
            .stop()
            .await;
    }

    pub(crate) async fn stop_relay(&mut self) {
        std::mem::replace(&mut self.relay, Tasks::none())
            .stop()
            .await;
    }

    pub(crate) async fn stop(mut self) {
        self.stop_reader().await;
        self.stop_relay().await;
    }
}

/// JetStream as an operator uses it.
pub(crate) fn jetstream(bus: &Bus) -> jetstream::Context {
    jetstream::new(bus.client().clone())
}

/// Creates `source`'s stream such that its events may be deleted and purged: the server does not
/// allow clearing `deny_delete` and `deny_purge` later.
pub(crate) async fn make_soft_stream(bus: &Bus, source: &str) {
    let mut settings = headwater::stream::settings(source, 1);
    settings.deny_delete = false;
    settings.deny_purge = false;
    jetstream(bus).create_stream(settings).await.unwrap();
}

/// An event in a stream.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) id: Option<String>,
    pub(crate) value: i64,
    pub(crate) payload: bytes::Bytes,
}

/// The events in `source`'s stream; none if there is no stream.
pub(crate) async fn stored(bus: &Bus, source: &str) -> Vec<Stored> {
    let Ok(stream) = jetstream(bus)
        .get_stream(headwater::stream::name(source))
        .await
    else {
        return Vec::new();
    };
    let state = stream.cached_info().state.clone();
    if state.messages == 0 {
        return Vec::new();
    }
    futures_util::stream::iter(state.first_sequence..=state.last_sequence)
        .map(|sequence| stored_at(&stream, sequence))
        .buffered(64)
        .try_filter_map(async |stored| Ok(stored))
        .try_collect()
        .await
        .unwrap()
}

async fn stored_at(stream: &Stream, sequence: u64) -> anyhow::Result<Option<Stored>> {
    let message = match stream.get_raw_message(sequence).await {
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
        found => found?,
    };
    let value = <SensorRead as prost::Message>::decode(message.payload.clone());
    let id = message.headers.get("Nats-Msg-Id");
    Ok(Some(Stored {
        sequence,
        subject: message.subject.to_string(),
        id: id.map(|id| id.as_str().to_owned()),
        value: value.map_or(i64::MIN, |read| read.value),
        payload: message.payload,
    }))
}

/// Waits until `source`'s stream holds exactly the events with these values, in this order.
pub(crate) async fn eventually_stored(bus: &Bus, source: &str, wanted: &[i64]) -> Vec<Stored> {
    let what = format!("{source}'s stream holds {} events", wanted.len());
    eventually(&what, async || {
        let stored = stored(bus, source).await;
        let values: Vec<i64> = stored.iter().map(|event| event.value).collect();
        differs(&values, wanted).map_or(Ok(stored), Err)
    })
    .await
}

/// The difference between `found` and `wanted`, in few words.
fn differs(found: &[i64], wanted: &[i64]) -> Option<String> {
    let same = found.iter().zip(wanted).take_while(|(f, w)| f == w).count();
    let next = &found[same..found.len().min(same + 8)];
    (found != wanted).then(|| format!("{} of them; after {same} right ones {next:?}", found.len()))
}

/// The ids that the events 1 to `count` of `db` have on the bus.
pub(crate) fn ids(db: &Database, count: u64) -> Vec<Option<String>> {
    (1..=count)
        .map(|position| Some(format!("{}.{}.{position}", db.owner(), db.epoch())))
        .collect()
}

/// Publishes by hand, without a relay.
pub(crate) async fn publish_by_hand(bus: &Bus, id: Option<&str>, event: &impl Event) {
    let mut headers = HeaderMap::new();
    if let Some(id) = id {
        headers.insert("Nats-Msg-Id", id);
    }
    let payload = prost::Message::encode_to_vec(event);
    let ack = jetstream(bus)
        .publish_with_headers(headwater::subject_of(event), headers, payload.into())
        .await
        .unwrap();
    assert!(
        !ack.await.unwrap().duplicate,
        "the server treated it as a duplicate"
    );
}

/// Appends readings to the empty outbox of `db`, and publishes them by hand after the events of
/// another epoch. A relay would do so only if it finds its own epoch in the stream.
pub(crate) async fn begin_epoch(bus: &Bus, db: &Database, values: [i64; 2]) {
    append(db, reads(values)).await;
    for (id, value) in ids(db, 2).iter().zip(values) {
        publish_by_hand(bus, id.as_deref(), &read("attic", value)).await;
    }
}

/// Publishes the events of the stream again with the same ids, once the server's dedupe window no
/// longer has them. Like a careless client, it omits the expected-last-sequence check.
pub(crate) async fn publish_again(bus: &Bus, stored: &[Stored]) {
    for event in stored {
        eventually("the dedupe window has passed", async || {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", event.id.clone().unwrap_or_default());
            let ack = jetstream(bus)
                .publish_with_headers(event.subject.clone(), headers, event.payload.clone())
                .await
                .unwrap();
            if ack.await.unwrap().duplicate {
                Err("duplicate")
            } else {
                Ok(())
            }
        })
        .await;
    }
}

/// The log lines of this process that contain `text`.
pub(crate) fn logged(text: &str) -> Vec<String> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    lines
        .iter()
        .filter(|line| line.contains(text))
        .cloned()
        .collect()
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps the log of this process, for [`logged`], from this call on.
pub(crate) fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = tracing_subscriber::filter::LevelFilter::INFO;
        let subscriber = tracing_subscriber::registry().with(filter).with(Keep);
        tracing::subscriber::set_global_default(subscriber).unwrap();
    });
}

struct Keep;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Keep {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        LINES
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(line.0);
    }
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

/// Serves health and metrics; returns their address.
pub(crate) async fn serve_system(tasks: &mut Tasks) -> String {
    let config = http_config();
    let app = headwater::http::admin(about("system"), tasks.health.clone(), &config);
    serve(tasks, app, config).await
}

/// Serves `app`; returns its address.
pub(crate) async fn serve(
    tasks: &mut Tasks,
    app: axum::Router,
    config: headwater::http::Config,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    serve_on(tasks, listener, app, config);
    format!("http://{address}")
}

/// Serves `app` on `listener`.
pub(crate) fn serve_on(
    tasks: &mut Tasks,
    listener: tokio::net::TcpListener,
    app: axum::Router,
    config: headwater::http::Config,
) {
    tasks.supervisor.spawn("http", |stop| {
        headwater::http::serve(listener, app, config, stop)
    });
}

pub(crate) fn http_config() -> headwater::http::Config {
    headwater::http::Config {
        listen: ([127, 0, 0, 1], 0).into(),
        connections: 16,
        header_timeout: Duration::from_secs(1),
        timeout: Duration::from_secs(20),
        consistency_timeout: Duration::from_secs(1),
        ..headwater::http::Config::default()
    }
}

/// The metrics of the process that are whole numbers, by name and labels.
pub(crate) async fn metrics(address: &str) -> BTreeMap<String, u64> {
    let text = reqwest::get(format!("{address}/metrics"))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

/// A latch that blocks closures on the writer thread until it is opened.
pub(crate) fn latch() -> (std::sync::mpsc::Sender<()>, Latch) {
    let (open, shut) = std::sync::mpsc::channel();
    (open, Latch(Arc::new(Mutex::new(shut))))
}

#[derive(Clone)]
pub(crate) struct Latch(Arc<Mutex<std::sync::mpsc::Receiver<()>>>);

impl Latch {
    /// Waits until the sender is used or dropped.
    pub(crate) fn wait(&self) {
        let shut = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = shut.recv_timeout(PATIENCE);
    }
}
