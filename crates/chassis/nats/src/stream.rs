//! A source's stream: its name, its settings, and its creation.
//!
//! An operator may change any setting of a stream at any time. There are these kinds:
//!
//! | | settings |
//! | --- | --- |
//! | restored by the service | `Insisted` in `SETTINGS`: without most of them, events are lost, changed or taken out of order |
//! | refused by name | `OBSTACLES`: the relay cannot publish with them, and the server never changes them |
//! | shown by `headwater doctor` | the others in `SETTINGS` |
//! | limits | [`discards`] lists those that drop old events; the relay names a limit that refuses an event |
//! | harmless | compression, placement, republish, first sequence, consumer limits, message TTLs, direct get for mirrors, batches without atomicity |

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType, Stream,
};
use serde::Serialize;

use crate::bus::{self, Bus};
use crate::error::Error;
use crate::monitor;

/// The deduplication window, as short as the server allows. Exactly-once comes from the relay's
/// expected-last-sequence check, which has no window. A long window would refuse events that are
/// published again after a purge or a rollback, because a purge does not clear it, and would cost
/// the server memory per id.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

/// The name of `source`'s stream: the source in capitals.
pub fn name(source: &str) -> String {
    source.to_uppercase()
}

/// The settings of `source`'s stream.
pub fn settings(source: &str, replicas: usize) -> Config {
    let mut metadata = bus::metadata([("source", source), ("kind", "events")]);
    monitor::merge(&mut metadata, &monitor::of_stream(replicas));
    Config {
        name: name(source),
        description: Some(format!(
            "Events of the service {source}, in the order of its outbox"
        )),
        subjects: vec![format!("{source}.>")],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // If the stream is full, the relay waits; history is never dropped.
        discard: DiscardPolicy::New,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        duplicate_window: DUPLICATE_WINDOW,
        deny_delete: true,
        deny_purge: true,
        allow_direct: true,
        allow_atomic_publish: true,
        num_replicas: replicas,
        metadata,
        ..Config::default()
    }
}

/// Creates `source`'s stream if it is missing. Updates an existing one to the current settings and
/// to at least the wanted number of replicas.
///
/// # Errors
/// [`Error::UnusableStream`]; [`Error::NotProvisioned`] if it cannot be created; those of requests
/// to the broker.
pub async fn ensure(bus: &Bus, source: &str) -> Result<Stream, Error> {
    try_ensure(bus, source).await.map_err(Error::of)
}

async fn try_ensure(bus: &Bus, source: &str) -> anyhow::Result<Stream> {
    let wanted = settings(source, bus.replicas);
    match bus.jetstream.get_stream(&wanted.name).await {
        Ok(stream) => {
            let config = &stream.cached_info().config;
            if let Some(obstacle) = obstacle(config) {
                bail!(Error::UnusableStream(obstacle.into()));
            }
            let stream = match insisted(config, &wanted) {
                config if config == stream.cached_info().config => stream,
                config => bring_back(bus, stream, config).await?,
            };
            with_copies(bus, stream, &wanted).await
        }
        Err(error) if is_missing(&error.kind()) => {
            let made = bus.jetstream.create_stream(wanted).await;
            let stream = made.with_context(|| {
                format!(
                    "create the stream {}; if services may not, run `headwater provision {source}`",
                    name(source)
                )
            });
            let stream = stream.map_err(|error| Error::NotProvisioned(error.into()))?;
            tracing::info!(
                stream = stream.cached_info().config.name,
                "created the stream"
            );
            Ok(stream)
        }
        Err(error) => Err(error.into()),
    }
}

/// Updates `stream` to this configuration. If the service may not, but the relay can do without the
/// changes, returns the stream unchanged.
async fn bring_back(bus: &Bus, stream: Stream, config: Config) -> anyhow::Result<Stream> {
    let found = differences(&stream.cached_info().config, &config);
    let can_do_without = found.iter().all(|found| {
        let name = &*found.setting;
        name.starts_with("metadata ") || CAN_DO_WITHOUT.contains(&name)
    });
    let changes: Vec<String> = found
        .into_iter()
        .map(|found| format!("{} from {} to {}", found.setting, found.is, found.wanted))
        .collect();
    let changes = changes.join(", ");
    tracing::info!(
        stream = config.name,
        changes,
        "changing the stream's settings"
    );
    match bus.jetstream.update_stream(&config).await {
        Ok(_) => Ok(bus.jetstream.get_stream(&config.name).await?),
        Err(error) if can_do_without => {
            tracing::warn!(
                stream = config.name,
                changes,
                %error,
                "cannot change the stream's settings, using them unchanged: see \
                 `headwater provision --dry-run`"
            );
            Ok(stream)
        }
        Err(error) => {
            Err(error).with_context(|| format!("change the settings of {}: {changes}", config.name))
        }
    }
}

/// Raises the replicas of `stream` to those of `wanted`. A higher number stays: an operator chose
/// it, perhaps while other services are still configured with a lower one. If there are too few
/// servers, returns the stream unchanged.
async fn with_copies(bus: &Bus, stream: Stream, wanted: &Config) -> anyhow::Result<Stream> {
    let mut config = stream.cached_info().config.clone();
    let (before, replicas) = (config.num_replicas, wanted.num_replicas);
    if before >= replicas {
        return Ok(stream);
    }
    config.num_replicas = replicas;
    config.metadata = explained(&config.metadata, wanted, replicas);
    match bus.jetstream.update_stream(&config).await {
        Ok(_) => {
            tracing::info!(
                stream = config.name,
                before,
                replicas,
                "raised the stream's replicas"
            );
            Ok(bus.jetstream.get_stream(&config.name).await?)
        }
        Err(error) => {
            tracing::warn!(
                stream = config.name,
                wanted = replicas,
                replicas = before,
                %error,
                "cannot raise the stream's replicas to the wanted number"
            );
            Ok(stream)
        }
    }
}

/// The stream, if it exists.
///
/// # Errors
/// Those of requests to the broker.
pub async fn find(bus: &Bus, source: &str) -> Result<Option<Stream>, Error> {
    match bus.jetstream.get_stream(name(source)).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if is_missing(&error.kind()) => Ok(None),
        Err(error) => Err(Error::of(error.into())),
    }
}

/// When the stream was created, in nanoseconds since 1970. Identifies the stream of a sequence.
pub fn created(info: &Info) -> i64 {
    i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

/// Whether the error is that the stream does not exist.
pub(crate) fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// A stream setting with a wanted value.
struct Setting {
    name: &'static str,
    change: Change,
    text: fn(&Config) -> String,
    /// Copies it from another configuration.
    take: fn(&mut Config, &Config),
}

/// What changes a setting to its wanted value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Each service.
    Insisted,
    /// `headwater provision`.
    Provisioned,
    /// Nothing: the server does not allow changes.
    Never,
}

/// Declares each setting once: what changes it, its name, its field, and its text if that is not
/// the field's `to_string`.
macro_rules! settings {
    (@text $field:ident) => { |config| config.$field.to_string() };
    (@text $field:ident $text:expr) => { $text };
    ($($change:ident, $name:literal, $field:ident $(, $text:expr)?;)*) => {
        [$(Setting {
            name: $name,
            change: Change::$change,
            text: settings!(@text $field $($text)?),
            take: |to, from| to.$field.clone_from(&from.$field),
        }),*]
    };
}

/// The settings with wanted values. Limits, placement and the rest stay as an operator set them.
const SETTINGS: [Setting; 21] = settings! {
    Insisted, "description", description, |config| config.description.clone().unwrap_or_default();
    Insisted, "subjects", subjects, |config| config.subjects.join(", ");
    Never, "storage", storage, |config| format!("{:?}", config.storage).to_lowercase();
    // Except to or from a work queue, which is an obstacle.
    Insisted, "retention", retention, |config| format!("{:?}", config.retention).to_lowercase();
    Insisted, "acknowledgements", no_ack, |config| (!config.no_ack).to_string();
    Insisted, "subject transform", subject_transform,
        |config| format!("{:?}", config.subject_transform);
    Insisted, "sources", sources, |config| {
        let sources = config.sources.iter().flatten();
        let names: Vec<&str> = sources.map(|source| &*source.name).collect();
        names.join(", ")
    };
    // A header of one event could purge all others.
    Insisted, "roll-ups", allow_rollup;
    // Delete markers are events without payload, on the subjects of the source.
    Insisted, "delete markers", subject_delete_marker_ttl,
        |config| format!("{:?}", config.subject_delete_marker_ttl);
    Never, "sealed", sealed;
    Never, "mirror", mirror, |config| {
        let mirrored = config.mirror.as_ref();
        mirrored.map_or_else(String::new, |of| of.name.clone())
    };
    Never, "counters", allow_message_counter;
    Never, "schedules", allow_message_schedules;
    Never, "asynchronous writes", persist_mode,
        |config| (config.persist_mode == Some(PersistenceMode::Async)).to_string();
    Insisted, "discard", discard, |config| format!("{:?}", config.discard).to_lowercase();
    Insisted, "duplicate window", duplicate_window,
        |config| format!("{:?}", config.duplicate_window);
    Insisted, "direct get", allow_direct;
    Insisted, "atomic batches", allow_atomic_publish;
    Provisioned, "deny delete", deny_delete;
    Provisioned, "deny purge", deny_purge;
    Provisioned, "replicas", num_replicas;
};

/// A setting with which a relay cannot publish, and that the server never changes.
struct Obstacle {
    is_there: fn(&Config) -> bool,
    what: &'static str,
    /// Removes it from the configuration of a new stream.
    remove: fn(&mut Config),
}

const OBSTACLES: [Obstacle; 6] = [
    Obstacle {
        is_there: |config| config.sealed,
        what: "is sealed: it takes no events",
        remove: |config| config.sealed = false,
    },
    Obstacle {
        is_there: |config| config.mirror.is_some(),
        what: "is a mirror of another stream: it takes no events of its source",
        remove: |config| config.mirror = None,
    },
    Obstacle {
        is_there: |config| config.allow_message_counter,
        what: "is for counters: it takes no events",
        remove: |config| config.allow_message_counter = false,
    },
    Obstacle {
        is_there: |config| config.allow_message_schedules,
        what: "is for scheduled messages: it discards events when it is full, and one event can \
               purge the others",
        remove: |config| config.allow_message_schedules = false,
    },
    Obstacle {
        is_there: |config| config.persist_mode == Some(PersistenceMode::Async),
        what: "acknowledges events before they are written, and takes no atomic batches",
        remove: |config| config.persist_mode = None,
    },
    Obstacle {
        is_there: |config| config.retention == RetentionPolicy::WorkQueue,
        what: "is a work queue: each event is removed once one reader has it",
        remove: |config| config.retention = RetentionPolicy::Limits,
    },
];

/// Why a relay cannot use a stream with this configuration, if it cannot, and what to do.
pub fn obstacle(config: &Config) -> Option<String> {
    let found = OBSTACLES
        .iter()
        .find(|obstacle| (obstacle.is_there)(config))?;
    let source = config.metadata.get("headwater.source");
    let source = source.map_or_else(|| config.name.to_lowercase(), String::clone);
    Some(format!(
        "the stream {} {}; the server cannot change that: `headwater stream restore {source}` \
         recreates the stream without that setting and fills it from the outbox",
        config.name, found.what
    ))
}

/// The configuration for a stream that replaces one with the configuration `is`: the operator's
/// settings stay, obstacles are removed.
pub fn again(is: &Config, wanted: &Config) -> Config {
    let mut config = insisted(is, wanted);
    for obstacle in &OBSTACLES {
        (obstacle.remove)(&mut config);
    }
    config
}

/// The limits by which a stream with this configuration drops old events; empty if there are none.
/// No event is lost, because the outbox keeps all events, but the stream alone is incomplete.
pub fn discards(config: &Config) -> Vec<String> {
    let mut limits = Vec::new();
    if !config.max_age.is_zero() {
        limits.push(format!("max_age of {:?}", config.max_age));
    }
    let drops_old = config.discard == DiscardPolicy::Old;
    if drops_old && config.max_messages > 0 {
        limits.push(format!("max_msgs of {}", config.max_messages));
    }
    if drops_old && config.max_bytes > 0 {
        limits.push(format!("max_bytes of {}", config.max_bytes));
    }
    // It drops events even with `discard: new`, unless that also applies to each subject.
    if config.max_messages_per_subject > 0 && !config.discard_new_per_subject {
        let limit = config.max_messages_per_subject;
        limits.push(format!("max_msgs_per_subject of {limit}"));
    }
    limits
}

/// Whether one of these limits has dropped the event at `sequence`, as far as the state of the
/// stream shows.
pub fn is_discarded(info: &Info, sequence: u64) -> bool {
    let (config, state) = (&info.config, &info.state);
    if discards(config).is_empty() || state.last_sequence < sequence {
        return false;
    }
    // The limit per subject drops events anywhere in the stream in favour of newer ones.
    let by_subject = config.max_messages_per_subject > 0 && state.last_sequence > sequence;
    sequence < state.first_sequence || by_subject
}

/// Insisted settings that a relay can do without if it may not change the stream.
const CAN_DO_WITHOUT: [&str; 4] = [
    "description",
    "duplicate window",
    "direct get",
    "atomic batches",
];

/// A setting that differs from its wanted value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The setting.
    pub setting: String,
    /// Its value.
    pub is: String,
    /// Its wanted value.
    pub wanted: String,
    /// Whether it can be changed without recreating the stream.
    pub can_change: bool,
}

/// The settings in which `is` differs from `wanted`.
pub fn differences(is: &Config, wanted: &Config) -> Vec<Difference> {
    let settings = SETTINGS.iter().filter_map(|setting| {
        let (is, wanted) = ((setting.text)(is), (setting.text)(wanted));
        (is != wanted).then(|| Difference {
            setting: setting.name.to_owned(),
            is,
            wanted,
            can_change: setting.change != Change::Never,
        })
    });
    let explained = explained(&is.metadata, wanted, wanted.num_replicas);
    let keys: BTreeSet<&String> = is.metadata.keys().chain(explained.keys()).collect();
    let metadata = keys.into_iter().filter_map(|key| {
        let (is, wanted) = (is.metadata.get(key), explained.get(key));
        (is != wanted).then(|| Difference {
            setting: format!("metadata {key}"),
            is: is.cloned().unwrap_or_default(),
            wanted: wanted.cloned().unwrap_or_default(),
            can_change: true,
        })
    });
    settings.chain(metadata).collect()
}

/// Changes the settings in `config` to those in `wanted`, as far as they can be changed.
pub fn bring(config: &mut Config, wanted: &Config) {
    take(config, wanted, |change| change != Change::Never);
}

fn take(config: &mut Config, wanted: &Config, applies: fn(Change) -> bool) {
    for setting in SETTINGS.iter().filter(|setting| applies(setting.change)) {
        (setting.take)(config, wanted);
    }
    config.metadata = explained(&config.metadata, wanted, config.num_replicas);
}

/// The metadata `is` of a stream with `replicas` replicas, with that of `wanted` added. Monitoring
/// thresholds that an operator has changed stay.
fn explained(
    is: &HashMap<String, String>,
    wanted: &Config,
    replicas: usize,
) -> HashMap<String, String> {
    let mut metadata = is.clone();
    let labels = wanted
        .metadata
        .iter()
        .filter(|(key, _)| !monitor::writes(key));
    metadata.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
    monitor::merge(&mut metadata, &monitor::of_stream(replicas));
    metadata
}

/// The configuration `is` with all insisted settings.
fn insisted(is: &Config, wanted: &Config) -> Config {
    let mut insisted = is.clone();
    take(&mut insisted, wanted, |change| change == Change::Insisted);
    insisted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_differs_where_its_settings_do_and_not_where_there_is_no_wish() {
        let wanted = settings("sensors", 1);
        let mut is = Config {
            max_age: Duration::from_secs(9),
            storage: StorageType::Memory,
            duplicate_window: Duration::from_mins(2),
            ..wanted.clone()
        };
        is.metadata.insert("team".to_owned(), "attic".to_owned());
        is.metadata.remove("headwater.kind");
        let found = differences(&is, &wanted);
        let names: Vec<_> = found
            .iter()
            .map(|found| (&*found.setting, found.can_change))
            .collect();
        let expected = [
            ("storage", false),
            ("duplicate window", true),
            ("metadata headwater.kind", true),
        ];
        assert_eq!(names, expected);
        bring(&mut is, &wanted);
        assert_eq!(
            differences(&is, &wanted).len(),
            1,
            "the storage cannot be changed"
        );
        assert_eq!(is.metadata["team"], "attic");
    }

    #[test]
    fn services_insist_on_some_settings_only() {
        let wanted = settings("sensors", 1);
        let soft = Config {
            deny_delete: false,
            max_bytes: 1 << 30,
            ..wanted.clone()
        };
        assert_eq!(insisted(&soft, &wanted), soft);
        let other = Config {
            allow_direct: false,
            ..soft.clone()
        };
        assert_eq!(insisted(&other, &wanted), soft);
    }

    #[test]
    fn a_stream_that_an_operator_has_in_three_copies_is_checked_for_three() {
        let wanted = settings("sensors", 1);
        let mut is = Config {
            num_replicas: 3,
            ..wanted.clone()
        };
        is = insisted(&is, &wanted);
        assert_eq!(is.num_replicas, 3);
        assert_eq!(is.metadata["io.nats.monitor.peer-expect"], "3");
        assert_eq!(insisted(&is, &wanted), is);
    }

    #[test]
    fn an_operators_threshold_is_no_difference() {
        let wanted = settings("sensors", 1);
        let mut is = wanted.clone();
        let critical = "io.nats.monitor.subjects-critical".to_owned();
        is.metadata.insert(critical.clone(), "77".to_owned());
        assert_eq!(differences(&is, &wanted), []);
        bring(&mut is, &wanted);
        assert_eq!(is.metadata[&critical], "77");
    }
}
