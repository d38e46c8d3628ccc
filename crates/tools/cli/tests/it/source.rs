//! A small source, and ways to corrupt its stream.

use std::path::PathBuf;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream::Stream};
use broker::Broker;
use headwater::database::{self, Migration};
use headwater::operator::{AdminEndpoints, ProjectionRegistry};
use headwater::request_reply::Questions;
use headwater::schema::{BUCKET, Keeper, Kind, Schema};
use headwater::{Bus, Clock, Database, Event, EventId, Health, Relay, Supervisor, bus};
use headwater::{operator, outbox, stream, subject_of};
use headwater_testkit::broker_with;
pub(crate) use headwater_testkit::{PATIENCE, eventually};
use prost::Message as _;
use sea_orm::DbErr;
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::tool::{self, Ended};

/// A sensor was read.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SensorRead {
    #[prost(string, tag = "1")]
    pub(crate) sensor: String,
    #[prost(uint64, tag = "2")]
    pub(crate) value: u64,
}

impl Event for SensorRead {
    const SUBJECT: &'static str = "sensors.v1.read";

    fn key(&self) -> &str {
        &self.sensor
    }
}

/// The source's event at `position`.
pub(crate) fn reading(position: u64) -> SensorRead {
    SensorRead {
        sensor: format!("sensor {}", position % 7),
        value: position,
    }
}

const MIGRATIONS: &[Migration] = &[];

/// The login of a user who may change nothing, not even create a consumer.
pub(crate) const VIEWER: [(&str, &str); 2] = [("NATS_USER", "viewer"), ("NATS_PASSWORD", "viewer")];

/// The operator may do everything; the user `viewer` may send only requests that change nothing.
const USERS: &str = r#"
    no_auth_user: operator
    authorization { users: [
      { user: operator, password: "" }
      { user: viewer, password: "viewer", permissions: {
        subscribe: ["_INBOX_headwater.>"]
        publish: [
          "$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.INFO.*"
          "$JS.API.STREAM.MSG.GET.*", "$JS.API.DIRECT.GET.>"
          "$JS.API.CONSUMER.NAMES.*", "$JS.API.CONSUMER.LIST.*", "$JS.API.CONSUMER.INFO.*.*"
          "$SRV.*", "headwater.*.status", "headwater.*.events", "headwater.*.verify", "headwater.*.fold"
          "headwater.*.dead-letters.list", "headwater.*.dead-letters.show"
          "headwater.*.dead-letters.discarded", "headwater.*.backup.status"
          # Only the system account is answered.
          "$SYS.REQ.SERVER.PING.VARZ"
        ]
      } }
    ] }
"#;

/// The schema of a sensor's event.
pub(crate) const PROTO: &str = r#"
    syntax = "proto3";
    package test.sensors.v1;
    message SensorRead { string sensor = 1; uint64 value = 2; }
"#;

/// The same, with the sensor as personal data.
pub(crate) const PERSONAL: &str = r#"
    syntax = "proto3";
    package test.sensors.v1;
    import "google/protobuf/descriptor.proto";
    extend google.protobuf.FieldOptions { bool personal = 57182; }
    message SensorRead { string sensor = 1 [(personal) = true]; uint64 value = 2; }
"#;

/// Compiles the schema at run time: the tool was built without it.
fn schema(proto: &str) -> Schema {
    const EVENTS: &[Kind] = &[Kind {
        subject: SensorRead::SUBJECT,
        message: "test.sensors.v1.SensorRead",
        key: "sensor",
    }];
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("sensors.proto"), proto).expect("write");
    let mut compiler = protox::Compiler::new([folder.path()]).expect("a folder");
    compiler.include_imports(true);
    compiler
        .open_file("sensors.proto")
        .expect("it is well formed");
    // Not the types of prost: those drop options that they do not know.
    let set = compiler.encode_file_descriptor_set();
    Schema {
        events: EVENTS,
        questions: &[],
        descriptors: Box::leak(set.into_boxed_slice()),
    }
}

/// A source, its broker, and a stream whose events can be deleted.
pub(crate) struct Source {
    pub(crate) broker: Broker,
    pub(crate) db: Database,
    pub(crate) stream: Stream,
    bus: Bus,
    jetstream: jetstream::Context,
    pub(crate) health: Health,
    tasks: Supervisor,
    stop: CancellationToken,
    /// Cancelled when it shall not answer any more.
    answers: CancellationToken,
    _folder: TempDir,
}

impl Source {
    /// Starts it with its relay.
    pub(crate) async fn start() -> Self {
        let mut source = Self::without_relay().await;
        source.begin_relay();
        source
    }

    /// Starts publishing its outbox.
    pub(crate) fn begin_relay(&mut self) {
        let (db, bus) = (self.db.clone(), self.bus.clone());
        let relay = Relay::new(db, bus, self.health.clone());
        self.tasks.spawn("relay", |stop| relay.run(stop));
    }

    /// Starts it without a relay: the test fills the stream.
    pub(crate) async fn without_relay() -> Self {
        let mut source = Self::silent().await;
        source.answer();
        source
    }

    /// Answers operators and projections, until it is silent.
    pub(crate) fn answer(&mut self) {
        let (bus, answers) = (self.bus.clone(), self.answers.clone());
        let admin = AdminEndpoints::new("sensors", self.health.clone())
            .with_database(self.db.clone(), ProjectionRegistry::default());
        self.tasks.spawn("operator", |_| {
            operator::serve(admin, bus, Questions::default(), answers)
        });
    }

    /// Answers nobody until it is to answer again. Its relay goes on.
    pub(crate) async fn be_silent(&mut self) {
        self.answers.cancel();
        self.answers = self.stop.child_token();
        let client = async_nats::connect(self.broker.url())
            .await
            .expect("connect");
        eventually("no answer", async || {
            let asked = client.request("headwater.sensors.status", "".into()).await;
            asked.err().map(drop).ok_or("an answer")
        })
        .await;
    }

    /// Creates its stream and database, but answers no requests.
    pub(crate) async fn silent() -> Self {
        let broker = broker_with(USERS);
        let folder = tempfile::tempdir().expect("make a folder");
        let file: PathBuf = folder.path().join("sensors.db");
        let config = database::Config::at(file);
        let db = Database::open("sensors", &config, MIGRATIONS, Clock::system())
            .await
            .expect("open the database");
        let bus = Bus::connect("sensors", &bus::Config::at(broker.url()))
            .await
            .expect("connect");
        let client = async_nats::connect(broker.url()).await.expect("connect");
        let jetstream = jetstream::new(client);
        let settings = jetstream::stream::Config {
            deny_delete: false,
            deny_purge: false,
            ..stream::settings("sensors", 1)
        };
        let stream = jetstream.create_stream(settings).await.expect("a stream");
        let stop = CancellationToken::new();
        Self {
            tasks: Supervisor::new(stop.clone()),
            health: Health::new(),
            answers: stop.child_token(),
            stop,
            broker,
            db,
            stream,
            bus,
            jetstream,
            _folder: folder,
        }
    }

    /// Publishes the schema of its events.
    pub(crate) async fn describe(&mut self, proto: &str) {
        let described = schema(proto).of("sensors").expect("a schema");
        let wanted = serde_json::to_vec(&described).expect("JSON");
        let keeper = Keeper::new(described, self.bus.clone(), self.health.clone());
        self.tasks.spawn("schema", |stop| keeper.run(stop));
        let kept = async || {
            let store = self.jetstream.get_key_value(BUCKET).await;
            let entry = store
                .map_err(|error| error.to_string())?
                .get("sensors")
                .await;
            let entry = entry.map_err(|error| error.to_string())?;
            if entry.as_ref() == Some(&wanted.clone().into()) {
                Ok(())
            } else {
                Err(format!("{entry:?}"))
            }
        };
        eventually("the schema is in the bucket", kept).await;
    }

    /// Creates another stream, and returns what publishes to it.
    pub(crate) async fn stream_of(
        &self,
        settings: jetstream::stream::Config,
    ) -> jetstream::Context {
        let made = self.jetstream.create_stream(settings).await;
        made.expect("a stream");
        self.jetstream.clone()
    }

    /// Changes the stream's settings.
    pub(crate) async fn change_stream(&self, settings: jetstream::stream::Config) {
        let changed = self.jetstream.update_stream(&settings).await;
        changed.expect("changed");
    }

    /// The values of the events in the stream.
    pub(crate) async fn values(&self) -> Vec<u64> {
        let info = self.stream.get_info().await.expect("the stream's state");
        let mut values = Vec::new();
        for sequence in info.state.first_sequence..=info.state.last_sequence {
            if let Ok(event) = self.stream.get_raw_message(sequence).await {
                let read = SensorRead::decode(event.payload).expect("a reading");
                values.push(read.value);
            }
        }
        values
    }

    /// Deletes the stream.
    pub(crate) async fn stream_is_gone(&self) {
        let gone = self.jetstream.delete_stream("SENSORS").await;
        gone.expect("it was there");
    }

    /// Appends the events of these positions.
    pub(crate) async fn append(&self, positions: std::ops::RangeInclusive<u64>) {
        let write = self.db.write(move |tx| {
            for position in positions {
                outbox::append(tx, &reading(position))?;
            }
            Ok::<_, DbErr>(())
        });
        write.await.expect("write");
    }

    /// Publishes the outbox's events at these positions to the stream, in this order.
    pub(crate) async fn publish(&self, positions: &[u64]) {
        for &position in positions {
            self.publish_as(position, &reading(position)).await;
        }
    }

    /// Publishes `event` under the id of `position`, even if it was published before.
    pub(crate) async fn publish_as(&self, position: u64, event: &SensorRead) {
        let id = EventId {
            source: "sensors".into(),
            epoch: self.db.epoch(),
            position,
        };
        self.publish_raw(&subject_of(event), Some(&id.to_string()), event)
            .await;
    }

    pub(crate) async fn publish_raw(&self, subject: &str, id: Option<&str>, event: &SensorRead) {
        let mut headers = HeaderMap::new();
        if let Some(id) = id {
            headers.insert("Nats-Msg-Id", id);
        }
        self.publish_with(subject, headers, event).await;
    }

    pub(crate) async fn publish_with(&self, subject: &str, headers: HeaderMap, event: &SensorRead) {
        eventually("the dedupe window to pass", async || {
            let payload = event.encode_to_vec().into();
            let (subject, headers) = (subject.to_owned(), headers.clone());
            let sent = self
                .jetstream
                .publish_with_headers(subject, headers, payload);
            let ack = sent.await.expect("sent").await.expect("stored");
            if ack.duplicate {
                Err("a duplicate")
            } else {
                Ok(())
            }
        })
        .await;
    }

    /// Waits until the stream has this many events.
    pub(crate) async fn published(&self, events: u64) {
        eventually("events in the stream", async || {
            let info = self.stream.get_info().await.expect("the stream's state");
            let last = info.state.last_sequence;
            if last >= events { Ok(()) } else { Err(last) }
        })
        .await;
    }

    /// The answer to a request in JSON.
    pub(crate) async fn ask(&self, subject: &'static str, request: &'static str) -> Value {
        let client = async_nats::connect(self.broker.url())
            .await
            .expect("connect");
        let asked = client.request(subject, request.into()).await;
        serde_json::from_slice(&asked.expect("an answer").payload).expect("JSON")
    }

    /// Runs the tool on this broker.
    pub(crate) async fn tool(&self, args: &[&str]) -> Ended {
        tool(&self.broker, args).await
    }

    /// Runs the tool with these variables.
    pub(crate) async fn tool_with(&self, environment: &[(&str, &str)], args: &[&str]) -> Ended {
        let url = self.broker.url();
        let environment = [&[("NATS_URL", &*url)], environment].concat();
        tool::start(args, &environment).end().await
    }

    /// Verifies, with enough time for the relay; returns the exit code and the report.
    pub(crate) async fn verify(&self) -> (i32, Value) {
        let ended = self.tool(&["verify", "--wait=60", "--output=json"]).await;
        let report = serde_json::from_str(&ended.stdout);
        let report = report.unwrap_or_else(|_| panic!("not JSON: {ended:?}"));
        (ended.code.expect("an exit code"), report)
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tasks.join(PATIENCE).await.expect("an orderly end");
        self.db.close().await;
    }
}

/// Runs the tool on a broker.
pub(crate) async fn tool(broker: &Broker, args: &[&str]) -> Ended {
    let url = broker.url();
    tool::start(args, &[("NATS_URL", &url)]).end().await
}
