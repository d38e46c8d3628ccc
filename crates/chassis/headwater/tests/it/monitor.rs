//! The thresholds in the metadata that `nats server check stream` and `check consumer` read.

use std::collections::HashMap;

use async_nats::jetstream::consumer::{self, AckPolicy, pull};
use headwater::stream;

use crate::support::{
    World, broker, bus, eventually, folder, jetstream, open, projecting, relaying,
};

type Metadata = HashMap<String, String>;

fn threshold<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    let value = metadata.get(&format!("io.nats.monitor.{name}"))?;
    Some(value)
}

async fn of_stream(world: &World) -> Metadata {
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    stream.cached_info().config.metadata.clone()
}

async fn of_consumer(world: &World) -> Result<consumer::Config, String> {
    let stream = jetstream(&world.bus).get_stream("SENSORS").await;
    let stream = stream.map_err(|error| error.to_string())?;
    let info = stream.consumer_info("readings").await;
    Ok(info.map_err(|error| error.to_string())?.config)
}

#[tokio::test]
async fn streams_and_consumers_say_when_something_is_wrong_with_them() {
    let world = World::start().await;
    world.append(1..=3).await;
    let config = eventually("there is a consumer", async || of_consumer(&world).await).await;
    assert!(config.description.unwrap().contains("projection readings"));
    assert_eq!(threshold(&config.metadata, "enabled"), Some("true"));
    assert_eq!(
        threshold(&config.metadata, "unprocessed-critical"),
        Some("10000")
    );
    assert_eq!(threshold(&config.metadata, "waiting-critical"), Some("32"));
    let metadata = of_stream(&world).await;
    assert_eq!(threshold(&metadata, "enabled"), Some("true"));
    assert_eq!(threshold(&metadata, "subjects-critical"), Some("10000"));
    // On a stream that is not a mirror, or is not replicated, their mere presence fails the check.
    assert_eq!(threshold(&metadata, "lag-critical"), None);
    assert_eq!(threshold(&metadata, "peer-expect"), None);
    world.stop().await;
}

/// Compares a consumer with its thresholds, as `nats server check consumer` does.
async fn check_consumer(world: &World) -> (consumer::Info, bool) {
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    let info = stream.consumer_info("readings").await.unwrap();
    let critical = |name: &str| -> u64 {
        let value = threshold(&info.config.metadata, name);
        value.unwrap().parse().unwrap()
    };
    let is_ok = info.num_pending < critical("unprocessed-critical")
        && (info.num_waiting as u64) < critical("waiting-critical");
    (info, is_ok)
}

#[tokio::test]
async fn a_consumer_that_nobody_reads_is_critical_and_one_that_is_read_is_not() {
    let mut world = World::start().await;
    world.append(1..=20).await;
    crate::support::eventually_readings(&world.copy, &(1..=20).collect::<Vec<_>>()).await;
    let (info, is_ok) = check_consumer(&world).await;
    assert!(is_ok && info.num_waiting > 0, "{info:?}");
    world.stop_reader().await;
    let mut config = info.config;
    let unprocessed = "io.nats.monitor.unprocessed-critical".to_owned();
    config.metadata.insert(unprocessed, "5".to_owned());
    let stream = jetstream(&world.bus).get_stream("SENSORS").await.unwrap();
    stream.update_consumer(config).await.unwrap();
    world.append(21..=30).await;
    eventually("the new events are unread", async || {
        let (info, is_ok) = check_consumer(&world).await;
        if is_ok { Err(info.num_pending) } else { Ok(()) }
    })
    .await;
    world.start_reader().await;
    eventually("the new events are read", async || {
        let (info, is_ok) = check_consumer(&world).await;
        if is_ok { Ok(()) } else { Err(info.num_pending) }
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn a_service_that_starts_leaves_an_operators_thresholds() {
    let mut world = World::start().await;
    world.append(1..=3).await;
    eventually("there is a consumer", async || of_consumer(&world).await).await;
    world.stop_reader().await;
    world.stop_relay().await;
    let jetstream = jetstream(&world.bus);
    let stream = jetstream.get_stream("SENSORS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    let (warn, critical) = (
        "io.nats.monitor.subjects-warn",
        "io.nats.monitor.subjects-critical",
    );
    config.metadata.insert(critical.to_owned(), "77".to_owned());
    config.metadata.remove(warn);
    jetstream.update_stream(&config).await.unwrap();
    let mut config = of_consumer(&world).await.unwrap();
    let unprocessed = "io.nats.monitor.unprocessed-critical";
    config
        .metadata
        .insert(unprocessed.to_owned(), "5".to_owned());
    stream.update_consumer(config).await.unwrap();

    world.relay = relaying(&world.source, &world.bus);
    world.start_reader().await;
    world.append(4..=5).await;
    crate::support::eventually_readings(&world.copy, &[1, 2, 3, 4, 5]).await;
    let metadata = of_stream(&world).await;
    assert_eq!(metadata.get(critical).map(String::as_str), Some("77"));
    assert_eq!(metadata.get(warn), None);
    let metadata = of_consumer(&world).await.unwrap().metadata;
    assert_eq!(metadata.get(unprocessed).map(String::as_str), Some("5"));
    world.stop().await;
}

#[tokio::test]
async fn streams_and_consumers_of_an_older_program_get_their_thresholds() {
    let (folder, broker) = (folder(), broker());
    let bus = bus(&broker, "world").await;
    let jetstream = jetstream(&bus);
    let stream = jetstream
        .create_stream(async_nats::jetstream::stream::Config {
            metadata: HashMap::from([("team".to_owned(), "blue".to_owned())]),
            max_bytes: 1 << 30,
            ..stream::settings("sensors", 1)
        })
        .await
        .unwrap();
    stream
        .create_consumer(pull::Config {
            durable_name: Some("readings".to_owned()),
            ack_policy: AckPolicy::None,
            max_waiting: 77,
            ..pull::Config::default()
        })
        .await
        .unwrap();
    let world = World {
        source: open(&folder, "sensors").await,
        copy: open(&folder, "house").await,
        relay: crate::support::Tasks::none(),
        reader: crate::support::Tasks::none(),
        bus,
        broker,
        folder,
    };
    let relay = relaying(&world.source, &world.bus);
    let reader = projecting(&world.copy, &world.bus).await;
    world.append(1..=3).await;
    crate::support::eventually_readings(&world.copy, &[1, 2, 3]).await;
    let config = of_consumer(&world).await.unwrap();
    assert_eq!(threshold(&config.metadata, "enabled"), Some("true"));
    assert_eq!(config.max_waiting, 77, "the operator's setting stays");
    assert!(config.description.unwrap().contains("readings"));
    let info = jetstream.get_stream("SENSORS").await.unwrap();
    let config = &info.cached_info().config;
    assert_eq!(threshold(&config.metadata, "enabled"), Some("true"));
    assert_eq!(config.metadata["team"], "blue");
    assert_eq!(config.max_bytes, 1 << 30);
    relay.stop().await;
    reader.stop().await;
    world.stop().await;
}
