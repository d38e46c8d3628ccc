//! The relay, and limits and stream settings that an operator may change at the broker.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, RetentionPolicy, Source, SubjectTransform,
};
use broker::{Broker, Options};
use headwater::health::State;
use headwater::{Bus, stream};
use tempfile::TempDir;

use crate::support::{
    append, bus, eventually, eventually_readings, eventually_says, eventually_stored, execute,
    folder, jetstream, keep_log, large, logged, open, projecting, read, reads, relaying, stored,
};

/// A change of a stream's configuration.
type Change = fn(&mut Config);

/// A broker with these JetStream limits and additional configuration lines.
fn broker_with(limits: &str, lines: &str) -> (Broker, TempDir) {
    let store = folder();
    let options = Options {
        include: Some("limits.conf".to_owned()),
        ..Options::new(store.path())
    };
    configure(&store, limits, lines);
    let binary = broker::find(&|_| {}).unwrap();
    (Broker::start(&binary, options).unwrap(), store)
}

fn configure(store: &TempDir, limits: &str, lines: &str) {
    let data = store.path().join("jetstream");
    let text = format!(
        "jetstream {{ store_dir: \"{}\", sync_interval: always, {limits} }}\n{lines}\n",
        data.display()
    );
    std::fs::write(store.path().join("limits.conf"), text).unwrap();
}

fn all(range: std::ops::RangeInclusive<i64>) -> Vec<i64> {
    range.collect()
}

#[tokio::test]
async fn a_broker_that_takes_smaller_batches_gets_smaller_batches() {
    for batch in ["max_msgs: 100", "max_msgs: 5", "max_msgs: 1"] {
        let limits = format!("limits {{ batch {{ {batch} }} }}");
        let (broker, _store) = broker_with(&limits, "");
        let folder = folder();
        let db = open(&folder, "sensors").await;
        let bus = bus(&broker, "sensors").await;
        append(&db, reads(1..=1350)).await;
        let relay = relaying(&db, &bus);
        eventually_stored(&bus, "sensors", &all(1..=1350)).await;
        eventually_says(&relay.health, "relay", "published up to 1350").await;
        append(&db, reads(1351..=1400)).await;
        eventually_stored(&bus, "sensors", &all(1..=1400)).await;
        relay.stop().await;
    }
}

/// Another client has as many open batches as the broker allows, for longer than this test lasts.
#[tokio::test]
async fn a_broker_that_opens_no_batch_gets_events_one_after_another() {
    let limits = "limits { batch { max_inflight_total: 1, timeout: \"90s\" } }";
    let (broker, _store) = broker_with(limits, "");
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let other = Config {
        name: "OTHER".to_owned(),
        allow_atomic_publish: true,
        ..Config::default()
    };
    jetstream(&bus).create_stream(other).await.unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Batch-Id", "open");
    headers.insert("Nats-Batch-Sequence", "1");
    let opened = bus
        .client()
        .request_with_headers("OTHER", headers, "x".into());
    assert!(
        opened.await.unwrap().payload.is_empty(),
        "the batch is open"
    );

    append(&db, reads(1..=120)).await;
    let relay = relaying(&db, &bus);
    eventually_stored(&bus, "sensors", &all(1..=120)).await;
    relay.stop().await;
}

/// The relay is not permitted to enable them.
#[tokio::test]
async fn a_stream_without_batches_gets_events_one_after_another() {
    let lines = r#"
        authorization { users [ { user: relay, password: x, permissions: {
            publish: { deny: ["$JS.API.STREAM.UPDATE.>"] } } } ] }
        no_auth_user: relay"#;
    let (broker, _store) = broker_with("", lines);
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut config = stream::settings("sensors", 1);
    config.allow_atomic_publish = false;
    jetstream(&bus).create_stream(config).await.unwrap();
    append(&db, reads(1..=120)).await;
    let relay = relaying(&db, &bus);
    eventually_stored(&bus, "sensors", &all(1..=120)).await;
    relay.stop().await;
}

#[tokio::test]
async fn an_event_that_the_broker_does_not_take_is_named_and_goes_when_it_does() {
    keep_log();
    let (broker, store) = broker_with("", "max_payload: 65536");
    let folder = folder();
    let db = open(&folder, "sensors").await;
    // The relay reconnects to learn the new limit.
    let looking = bus(&broker, "looking").await;
    let relay = relaying(&db, &bus(&broker, "sensors").await);
    append(&db, reads(1..=40)).await;
    append(&db, vec![large(41, 70_001)]).await;
    append(&db, reads(42..=43)).await;
    let why = "position 41 has 70";
    let state = eventually_says(&relay.health, "relay", why).await;
    assert!(matches!(state, State::Failed(_)), "{state:?}");
    let text = format!("{state:?}");
    assert!(
        text.contains("max_payload of the broker (65536 bytes)"),
        "{text}"
    );
    eventually_stored(&looking, "sensors", &all(1..=40)).await;

    configure(&store, "", "max_payload: 1MB");
    broker.reload().unwrap();
    eventually_stored(&looking, "sensors", &all(1..=43)).await;
    eventually_says(&relay.health, "relay", "Ok(\"published up to 43\")").await;
    let lines = logged(why);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("ERROR"), "{lines:?}");
    relay.stop().await;
}

#[tokio::test]
async fn a_limit_of_the_stream_is_named_and_order_is_kept() {
    let limits: [(Change, Change, &str); 4] = [
        (
            |to| to.max_messages = 20,
            |to| to.max_messages = -1,
            "max_msgs of the stream SENSORS (20)",
        ),
        (
            |to| to.max_bytes = 4096,
            |to| to.max_bytes = -1,
            "max_bytes of the stream SENSORS (4096)",
        ),
        (
            |to| to.max_message_size = 1000,
            |to| to.max_message_size = -1,
            "max_msg_size of the stream SENSORS (1000)",
        ),
        (
            |to| {
                to.max_messages_per_subject = 20;
                to.discard_new_per_subject = true;
            },
            |to| {
                to.max_messages_per_subject = -1;
                to.discard_new_per_subject = false;
            },
            "max_msgs_per_subject of the stream SENSORS (20)",
        ),
    ];
    for (set, take_away, name) in limits {
        let (folder, broker) = (folder(), crate::support::broker());
        let db = open(&folder, "sensors").await;
        let bus = bus(&broker, "sensors").await;
        let mut config = stream::settings("sensors", 1);
        set(&mut config);
        jetstream(&bus).create_stream(config.clone()).await.unwrap();
        append(&db, reads(1..=25)).await;
        append(&db, vec![large(26, 1500)]).await;
        append(&db, reads(27..=120)).await;
        let relay = relaying(&db, &bus);
        let state = eventually_says(&relay.health, "relay", name).await;
        assert!(matches!(state, State::Failed(_)), "{state:?}");
        let values: Vec<i64> = stored(&bus, "sensors")
            .await
            .iter()
            .map(|event| event.value)
            .collect();
        assert_eq!(
            values,
            all(1..=i64::try_from(values.len()).unwrap()),
            "{name}"
        );
        take_away(&mut config);
        jetstream(&bus).update_stream(config).await.unwrap();
        eventually_stored(&bus, "sensors", &all(1..=120)).await;
        eventually_says(&relay.health, "relay", "Ok").await;
        relay.stop().await;
    }
}

async fn change(bus: &Bus, change: impl FnOnce(&mut Config)) {
    let stream = jetstream(bus).get_stream("SENSORS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    change(&mut config);
    jetstream(bus).update_stream(config).await.unwrap();
}

async fn last_sequence(bus: &Bus) -> (u64, u64) {
    let stream = jetstream(bus).get_stream("SENSORS").await.unwrap();
    let state = &stream.cached_info().state;
    (state.messages, state.last_sequence)
}

async fn eventually_empty(bus: &Bus, last: u64) {
    eventually("the events are too old", async || {
        match last_sequence(bus).await {
            (0, sequence) if sequence == last => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn events_that_an_age_limit_takes_away_are_not_published_again() {
    keep_log();
    let (folder, broker) = (folder(), crate::support::broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut config = stream::settings("sensors", 1);
    config.max_age = Duration::from_secs(1);
    jetstream(&bus).create_stream(config).await.unwrap();
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=331)).await;
    eventually_says(&relay.health, "relay", "published up to 331").await;
    eventually_empty(&bus, 331).await;
    append(&db, reads(332..=332)).await;
    eventually_says(&relay.health, "relay", "published up to 332").await;
    assert_eq!(last_sequence(&bus).await.1, 332);
    eventually_empty(&bus, 332).await;
    relay.stop().await;

    // A restarted relay knows only what it has recorded.
    let relay = relaying(&db, &bus);
    eventually_says(&relay.health, "relay", "published up to 332").await;
    append(&db, reads(333..=333)).await;
    eventually_says(&relay.health, "relay", "published up to 333").await;
    assert_eq!(last_sequence(&bus).await.1, 333);
    relay.stop().await;
    for lines in [
        logged("publishing 331 again"),
        logged("publishing 332 again"),
    ] {
        assert!(lines.is_empty(), "{lines:?}");
    }
}

/// The events must come from the outbox, in pages: no event in the stream shows the gap.
#[tokio::test]
async fn a_cold_store_gets_from_the_outbox_what_an_age_limit_took_away() {
    let (folder, broker) = (folder(), crate::support::broker());
    let (db, copy) = (open(&folder, "sensors").await, open(&folder, "house").await);
    let bus = bus(&broker, "sensors").await;
    let mut config = stream::settings("sensors", 1);
    config.max_age = Duration::from_secs(1);
    jetstream(&bus).create_stream(config).await.unwrap();
    let mut source = relaying(&db, &bus);
    source.operator(&db, &bus);
    append(&db, reads(1..=2300)).await;
    eventually_says(&source.health, "relay", "published up to 2300").await;
    eventually_empty(&bus, 2300).await;
    let reader = projecting(&copy, &bus).await;
    eventually_readings(&copy, &all(1..=2300)).await;
    eventually_says(
        &reader.health,
        "readings from sensors",
        "applied up to 2300",
    )
    .await;
    append(&db, reads(2301..=2301)).await;
    eventually_readings(&copy, &all(1..=2301)).await;
    reader.stop().await;
    source.stop().await;
}

#[tokio::test]
async fn a_loss_before_a_restart_is_told_of() {
    keep_log();
    let (folder, broker) = (folder(), crate::support::broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=37)).await;
    eventually_says(&relay.health, "relay", "published up to 37").await;
    relay.stop().await;
    jetstream(&bus).delete_stream("SENSORS").await.unwrap();
    let relay = relaying(&db, &bus);
    eventually_stored(&bus, "sensors", &all(1..=37)).await;
    let lines = logged("publishing 37 again from the outbox");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("WARN"), "{lines:?}");
    relay.stop().await;
}

/// A killed process has recorded less than it published.
#[tokio::test]
async fn an_old_note_does_no_harm() {
    keep_log();
    let (folder, broker) = (folder(), crate::support::broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let mut published = 0;
    for position in [0_i64, 3, 8] {
        let relay = relaying(&db, &bus);
        let first = 10 * position + 1;
        append(&db, reads(first..first + 10)).await;
        published += 10;
        let up_to = format!("published up to {published}\"");
        eventually_says(&relay.health, "relay", &up_to).await;
        relay.stop().await;
        let written = db.write(move |tx| {
            let sql = "UPDATE headwater_relay SET position = ?, sequence = ?";
            execute(tx, sql, [position.into(), position.into()])
        });
        written.await.unwrap();
    }
    let relay = relaying(&db, &bus);
    append(&db, reads(500..=500)).await;
    let wanted: Vec<i64> = [1..=10, 31..=40, 81..=90, 500..=500]
        .into_iter()
        .flatten()
        .collect();
    eventually_stored(&bus, "sensors", &wanted).await;
    relay.stop().await;
}

#[tokio::test]
async fn settings_that_harm_are_put_right_while_the_relay_runs() {
    let harms: [(&str, Change); 6] = [
        ("acknowledgements", |to| to.no_ack = true),
        ("retention", |to| to.retention = RetentionPolicy::Interest),
        ("discard", |to| to.discard = DiscardPolicy::Old),
        ("sources", |to| {
            to.sources = Some(vec![Source {
                name: "OTHER".to_owned(),
                ..Source::default()
            }]);
        }),
        ("roll-ups", |to| to.allow_rollup = true),
        ("subject transform", |to| {
            to.subject_transform = Some(SubjectTransform {
                source: "sensors.>".to_owned(),
                destination: "changed.>".to_owned(),
            });
        }),
    ];
    let (folder, broker) = (folder(), crate::support::broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    crate::support::make_soft_stream(&bus, "sensors").await;
    let other = Config {
        name: "OTHER".to_owned(),
        ..Config::default()
    };
    jetstream(&bus).create_stream(other).await.unwrap();
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=1)).await;
    eventually_stored(&bus, "sensors", &[1]).await;
    let wanted = stream::settings("sensors", 1);
    for (name, harm) in harms {
        change(&bus, harm).await;
        eventually(&format!("{name} is repaired"), async || {
            let stream = jetstream(&bus).get_stream("SENSORS").await.unwrap();
            let found = stream::differences(&stream.cached_info().config, &wanted);
            let found: Vec<String> = found.into_iter().map(|found| found.setting).collect();
            if found == ["deny delete", "deny purge"] {
                Ok(())
            } else {
                Err(found)
            }
        })
        .await;
    }
    // Harmless settings are left alone.
    change(&bus, |to| to.max_age = Duration::from_hours(1)).await;
    append(&db, reads(2..=20)).await;
    eventually_stored(&bus, "sensors", &all(1..=20)).await;
    relay.stop().await;
}

#[tokio::test]
async fn a_setting_that_nobody_can_change_is_named() {
    let (folder, broker) = (folder(), crate::support::broker());
    let db = open(&folder, "sensors").await;
    let bus = bus(&broker, "sensors").await;
    let relay = relaying(&db, &bus);
    append(&db, reads(1..=3)).await;
    eventually_stored(&bus, "sensors", &[1, 2, 3]).await;
    change(&bus, |to| to.sealed = true).await;
    let state = eventually_says(&relay.health, "relay", "SENSORS is sealed").await;
    assert!(matches!(state, State::Failed(_)), "{state:?}");
    assert!(format!("{state:?}").contains("headwater stream restore sensors"));
    append(&db, vec![read("attic", 4)]).await;
    jetstream(&bus).delete_stream("SENSORS").await.unwrap();
    eventually_stored(&bus, "sensors", &[1, 2, 3, 4]).await;
    relay.stop().await;

    let unusable: [(&str, Change); 4] = [
        ("is for counters", |to| {
            to.allow_message_counter = true;
            to.discard = DiscardPolicy::Old;
        }),
        ("is a work queue", |to| {
            to.retention = RetentionPolicy::WorkQueue;
        }),
        ("before they are written", |to| {
            to.allow_atomic_publish = false;
            to.persist_mode = Some(async_nats::jetstream::stream::PersistenceMode::Async);
        }),
        ("is a mirror", |to| {
            *to = Config {
                name: to.name.clone(),
                mirror: Some(Source {
                    name: "OTHER".to_owned(),
                    ..Source::default()
                }),
                ..Config::default()
            };
        }),
    ];
    let other = Config {
        name: "OTHER".to_owned(),
        ..Config::default()
    };
    jetstream(&bus).create_stream(other).await.unwrap();
    for (why, make) in unusable {
        jetstream(&bus).delete_stream("SENSORS").await.unwrap();
        let mut config = stream::settings("sensors", 1);
        make(&mut config);
        jetstream(&bus).create_stream(config).await.unwrap();
        let relay = relaying(&db, &bus);
        eventually_says(&relay.health, "relay", why).await;
        relay.stop().await;
    }
}
