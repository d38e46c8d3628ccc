//! The schema of a source's events in the KV bucket: it exists when needed, and does not flap.

use async_nats::jetstream::kv::Store;
use headwater::health::State;
use headwater::schema::{BUCKET, Described, Keeper, Kind, Schema, SchemaError};
use headwater::{Bus, Process, Service};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, SourceCodeInfo,
};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::support::{
    MIGRATIONS, Tasks, about, broker, bus, eventually, eventually_says, folder, jetstream,
};

const EVENTS: &[Kind] = &[Kind {
    subject: "sensors.v1.read",
    message: "test.sensors.v1.SensorRead",
    key: "sensor",
}];

/// A schema of sensors whose event has these string fields, with files that it does not need.
fn schema(fields: &[&str]) -> Schema {
    let set = FileDescriptorSet {
        file: vec![
            file("unit.proto", "test.unit.v1", "Unit", &["name"]),
            FileDescriptorProto {
                dependency: vec!["unit.proto".to_owned()],
                source_code_info: Some(SourceCodeInfo::default()),
                ..file("sensors.proto", "test.sensors.v1", "SensorRead", fields)
            },
            file("other.proto", "test.other.v1", "Other", &["name"]),
        ],
    };
    Schema {
        events: EVENTS,
        questions: &[],
        descriptors: Box::leak(set.encode_to_vec().into_boxed_slice()),
    }
}

fn file(name: &str, package: &str, message: &str, fields: &[&str]) -> FileDescriptorProto {
    let field = |(number, name): (i32, &&str)| FieldDescriptorProto {
        name: Some((*name).to_owned()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::String.into()),
        ..FieldDescriptorProto::default()
    };
    FileDescriptorProto {
        name: Some(name.to_owned()),
        package: Some(package.to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![DescriptorProto {
            name: Some(message.to_owned()),
            field: (1..).zip(fields).map(field).collect(),
            ..DescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    }
}

fn described(fields: &[&str]) -> Described {
    schema(fields).of("sensors").unwrap()
}

/// A source that only keeps its schema.
fn keeping(bus: &Bus, fields: &[&str]) -> Tasks {
    let mut tasks = Tasks::none();
    let keeper = Keeper::new(described(fields), bus.clone(), tasks.health.clone());
    tasks.run("schema", |stop| keeper.run(stop));
    tasks
}

/// Waits until the keeper has completed once.
async fn settled(tasks: &Tasks) {
    eventually("the schema is kept", async || {
        match tasks.health.parts().get("schema") {
            Some(State::Ok(_)) => Ok(()),
            other => Err(other.cloned()),
        }
    })
    .await;
}

async fn bucket(bus: &Bus) -> Store {
    jetstream(bus).get_key_value(BUCKET).await.unwrap()
}

/// The entry of sensors in the bucket, and its revision.
async fn kept(bus: &Bus) -> Result<(Described, u64), String> {
    let store = jetstream(bus).get_key_value(BUCKET).await;
    let store = store.map_err(|error| error.to_string())?;
    let entry = store.entry("sensors").await;
    let entry = entry.map_err(|error| error.to_string())?.ok_or("none")?;
    let kept = serde_json::from_slice(&entry.value).map_err(|error| error.to_string())?;
    Ok((kept, entry.revision))
}

async fn eventually_kept(bus: &Bus, fields: &[&str]) -> u64 {
    let wanted = described(fields);
    eventually("the bucket has the schema", async || {
        let (kept, revision) = kept(bus).await?;
        if kept == wanted {
            Ok(revision)
        } else {
            Err(format!("another one at revision {revision}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_service_comes_up_without_the_broker_and_describes_its_events_once_that_is_there() {
    let (folder, mut broker) = (folder(), broker());
    broker.kill().unwrap();
    let file = folder.path().join("sensors.db");
    let url = broker.url();
    let flags = ["--database", file.to_str().unwrap(), "--nats-url", &url];
    let stop = CancellationToken::new();
    let sensors = about("sensors");
    let config = headwater::settings(&sensors, &flags);
    let process = Process::on_free_ports(stop.clone()).await.unwrap();
    let service = Service::start(sensors, MIGRATIONS, config, process).await;
    let mut service = service.unwrap();
    service.publish(&schema(&["sensor"])).unwrap();
    let health = service.health.clone();
    let running = tokio::task::JoinSet::from_iter([service.serve(OpenApiRouter::new())]);
    assert!(health.is_ready(), "{:?}", health.parts());
    broker.restart().unwrap();
    let bus = bus(&broker, "test").await;
    eventually_kept(&bus, &["sensor"]).await;
    let info = jetstream(&bus).get_stream("KV_headwater-schemas").await;
    let config = info.unwrap().cached_info().config.clone();
    assert!(config.description.unwrap().contains("schemas"));
    assert_eq!(config.metadata["headwater.kind"], "schemas");
    stop.cancel();
    for ended in running.join_all().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn an_entry_has_what_the_messages_need_and_nothing_else() {
    let described = described(&["sensor"]);
    let set = FileDescriptorSet::decode(&*described.descriptors().unwrap()).unwrap();
    let files: Vec<_> = set.file.iter().map(FileDescriptorProto::name).collect();
    assert_eq!(files, ["unit.proto", "sensors.proto"]);
    let comments = set.file.iter().any(|file| file.source_code_info.is_some());
    assert!(!comments);
}

#[test]
fn a_schema_that_contradicts_itself_is_refused() {
    let error = schema(&["gauge"]).of("sensors").unwrap_err();
    assert!(matches!(error, SchemaError::NoKey { .. }), "{error:?}");
    assert!(error.to_string().contains("no such string"), "{error}");
    let error = schema(&["sensor"]).of("gauges").unwrap_err();
    assert!(matches!(error, SchemaError::NoEvents(_)), "{error:?}");
    assert!(error.to_string().contains("begins with gauges"), "{error}");
    let descriptors = |descriptors| Schema {
        descriptors,
        ..schema(&["sensor"])
    };
    let error = descriptors(b"\xff").of("sensors").unwrap_err();
    assert!(matches!(error, SchemaError::NotDescriptors(_)), "{error:?}");
    let mut stored = described(&["sensor"]);
    stored.descriptors = "?".to_owned();
    let error = stored.descriptors().unwrap_err();
    assert!(matches!(error, SchemaError::NotBase64(_)), "{error:?}");
    let error = descriptors(&[]).of("sensors").unwrap_err();
    let SchemaError::NoMessage { message } = error else {
        panic!("{error:?}");
    };
    assert_eq!(message, "test.sensors.v1.SensorRead");
}

#[tokio::test]
async fn a_broker_that_comes_back_empty_has_the_schema_again() {
    let mut broker = broker();
    let bus = bus(&broker, "sensors").await;
    let tasks = keeping(&bus, &["sensor"]);
    eventually_kept(&bus, &["sensor"]).await;
    broker.kill().unwrap();
    std::fs::remove_dir_all(broker.store().join("jetstream")).unwrap();
    broker.restart().unwrap();
    eventually_kept(&bus, &["sensor"]).await;
    tasks.stop().await;
}

#[tokio::test]
async fn a_schema_that_is_there_is_not_written_again() {
    let broker = broker();
    let bus = bus(&broker, "sensors").await;
    let tasks = keeping(&bus, &["sensor"]);
    let revision = eventually_kept(&bus, &["sensor"]).await;
    tasks.stop().await;
    let tasks = keeping(&bus, &["sensor"]);
    settled(&tasks).await;
    assert_eq!(kept(&bus).await.unwrap().1, revision);
    tasks.stop().await;
}

#[tokio::test]
async fn an_older_program_does_not_take_away_what_a_newer_one_added() {
    let broker = broker();
    let bus = bus(&broker, "sensors").await;
    let old = keeping(&bus, &["sensor"]);
    eventually_kept(&bus, &["sensor"]).await;
    let new = keeping(&bus, &["sensor", "note"]);
    let revision = eventually_kept(&bus, &["sensor", "note"]).await;
    // A rollback: another old program starts.
    let rolled_back = keeping(&bus, &["sensor"]);
    settled(&rolled_back).await;
    assert_eq!(kept(&bus).await.unwrap().1, revision);
    for tasks in [old, new, rolled_back] {
        tasks.stop().await;
    }
}

#[tokio::test]
async fn of_two_that_contradict_each_other_the_last_to_start_stays_also_after_a_reconnect() {
    let mut broker = broker();
    let first_bus = bus(&broker, "sensors").await;
    let first = keeping(&first_bus, &["sensor", "place"]);
    eventually_kept(&first_bus, &["sensor", "place"]).await;
    let second_bus = bus(&broker, "sensors").await;
    let second = keeping(&second_bus, &["sensor", "room"]);
    let revision = eventually_kept(&second_bus, &["sensor", "room"]).await;
    broker.kill().unwrap();
    broker.restart().unwrap();
    eventually("the first keeper has checked again", async || {
        match first.health.parts().get("schema") {
            Some(State::Ok(state)) if state.contains("started later") => Ok(()),
            other => Err(other.cloned()),
        }
    })
    .await;
    settled(&second).await;
    let (now, at) = kept(&first_bus).await.unwrap();
    assert_eq!((now, at), (described(&["sensor", "room"]), revision));
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn what_nobody_can_read_is_replaced() {
    let broker = broker();
    let bus = bus(&broker, "sensors").await;
    let tasks = keeping(&bus, &["sensor"]);
    eventually_kept(&bus, &["sensor"]).await;
    tasks.stop().await;
    let store = bucket(&bus).await;
    store.put("sensors", "nonsense".into()).await.unwrap();
    let tasks = keeping(&bus, &["sensor"]);
    eventually_kept(&bus, &["sensor"]).await;
    tasks.stop().await;
    store.delete("sensors").await.unwrap();
    let tasks = keeping(&bus, &["sensor"]);
    eventually_kept(&bus, &["sensor"]).await;
    tasks.stop().await;
}

#[tokio::test]
async fn a_bucket_with_too_small_values_is_named_and_its_mending_is_enough() {
    let broker = broker();
    let bus = bus(&broker, "sensors").await;
    let jetstream = jetstream(&bus);
    let mut settings = headwater::schema::bucket(1);
    settings.max_message_size = 100;
    eventually("JetStream", async || {
        jetstream.create_stream(settings.clone()).await
    })
    .await;
    let tasks = keeping(&bus, &["sensor"]);
    eventually_says(&tasks.health, "schema", "at most 100 are accepted").await;
    settings.max_message_size = -1;
    jetstream.update_stream(settings).await.unwrap();
    settled(&tasks).await;
    tasks.stop().await;
}
