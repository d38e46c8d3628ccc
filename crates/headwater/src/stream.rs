//! A source's stream: its name, its settings, and making it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream,
};
use serde::Serialize;

use crate::bus::{self, Bus};
use crate::monitor;

/// The dedupe window, as short as the server allows. Exactly-once comes from the relay's fence,
/// which has no window; a long one would refuse events that are published again after a purge
/// or a rollback, because a purge does not clear it, and costs the server memory an id.
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
        // Full means that the relay waits, never that history is dropped.
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

/// Makes `source`'s stream if it is not there, brings an older one to today's settings, and has
/// as many copies kept of it as are wanted.
pub(crate) async fn ensure(bus: &Bus, source: &str) -> anyhow::Result<Stream> {
    let wanted = settings(source, bus.replicas);
    match bus.jetstream.get_stream(&wanted.name).await {
        Ok(stream) => {
            let stream = if is_as_wanted(&stream.cached_info().config, &wanted) {
                stream
            } else {
                tracing::info!(stream = wanted.name, "bringing the stream to its settings");
                let mut config = stream.cached_info().config.clone();
                take(&mut config, &wanted, |setting| setting.is_insisted_on);
                bus.jetstream.update_stream(&config).await?;
                bus.jetstream.get_stream(&config.name).await?
            };
            with_copies(bus, stream, &wanted).await
        }
        Err(error) if is_missing(&error.kind()) => {
            let stream = bus.jetstream.create_stream(wanted).await?;
            tracing::info!(stream = stream.cached_info().config.name, "made the stream");
            Ok(stream)
        }
        Err(error) => Err(error.into()),
    }
}

/// Has at least as many copies kept of `stream` as are `wanted`. More stay: an operator wanted them, perhaps
/// while other services were still told of fewer. Where there are not enough servers for it, the
/// stream is of use as it is.
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
                "more copies of the stream"
            );
            Ok(bus.jetstream.get_stream(&config.name).await?)
        }
        Err(error) => {
            tracing::warn!(
                stream = config.name,
                wanted = replicas,
                replicas = before,
                %error,
                "the stream has fewer copies than it should, and cannot have more now"
            );
            Ok(stream)
        }
    }
}

/// The stream as it is now, if it is there.
pub(crate) async fn find(bus: &Bus, source: &str) -> anyhow::Result<Option<Stream>> {
    match bus.jetstream.get_stream(name(source)).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if is_missing(&error.kind()) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// When the stream was made, in nanoseconds since 1970: which stream a sequence belongs to.
pub(crate) fn created(info: &Info) -> i64 {
    i64::try_from(info.created.unix_timestamp_nanos()).unwrap_or(i64::MAX)
}

/// Whether it failed because there is no such stream.
pub(crate) fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// A setting of a stream that this program has a wish about.
struct Setting {
    name: &'static str,
    text: fn(&Config) -> String,
    /// Takes it over from another configuration; none where the server does not let it be changed.
    take: Option<fn(&mut Config, &Config)>,
    /// Whether a service brings it to its wish by itself; the others are for `headwater provision`.
    is_insisted_on: bool,
}

/// What there is a wish about; limits, placement and the rest stay as an operator set them.
const SETTINGS: [Setting; 11] = [
    Setting {
        name: "description",
        text: |config| config.description.clone().unwrap_or_default(),
        take: Some(|to, from| to.description.clone_from(&from.description)),
        is_insisted_on: true,
    },
    Setting {
        name: "subjects",
        text: |config| config.subjects.join(", "),
        take: Some(|to, from| to.subjects.clone_from(&from.subjects)),
        is_insisted_on: true,
    },
    Setting {
        name: "storage",
        text: |config| format!("{:?}", config.storage).to_lowercase(),
        take: None,
        is_insisted_on: false,
    },
    Setting {
        name: "retention",
        text: |config| format!("{:?}", config.retention).to_lowercase(),
        take: None,
        is_insisted_on: false,
    },
    Setting {
        name: "discard",
        text: |config| format!("{:?}", config.discard).to_lowercase(),
        take: Some(|to, from| to.discard = from.discard),
        is_insisted_on: true,
    },
    Setting {
        name: "duplicate window",
        text: |config| format!("{:?}", config.duplicate_window),
        take: Some(|to, from| to.duplicate_window = from.duplicate_window),
        is_insisted_on: true,
    },
    Setting {
        name: "direct get",
        text: |config| config.allow_direct.to_string(),
        take: Some(|to, from| to.allow_direct = from.allow_direct),
        is_insisted_on: true,
    },
    Setting {
        name: "atomic batches",
        text: |config| config.allow_atomic_publish.to_string(),
        take: Some(|to, from| to.allow_atomic_publish = from.allow_atomic_publish),
        is_insisted_on: true,
    },
    Setting {
        name: "deny delete",
        text: |config| config.deny_delete.to_string(),
        take: Some(|to, from| to.deny_delete = from.deny_delete),
        is_insisted_on: false,
    },
    Setting {
        name: "deny purge",
        text: |config| config.deny_purge.to_string(),
        take: Some(|to, from| to.deny_purge = from.deny_purge),
        is_insisted_on: false,
    },
    Setting {
        name: "replicas",
        text: |config| config.num_replicas.to_string(),
        take: Some(|to, from| to.num_replicas = from.num_replicas),
        is_insisted_on: false,
    },
];

/// A setting that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which.
    pub setting: String,
    /// What it is.
    pub is: String,
    /// What it should be.
    pub wanted: String,
    /// Whether it can be changed while the stream is there.
    pub can_change: bool,
}

/// Where the stream `is` not as `wanted`.
pub fn differences(is: &Config, wanted: &Config) -> Vec<Difference> {
    let settings = SETTINGS.iter().filter_map(|setting| {
        let (is, wanted) = ((setting.text)(is), (setting.text)(wanted));
        (is != wanted).then(|| Difference {
            setting: setting.name.to_owned(),
            is,
            wanted,
            can_change: setting.take.is_some(),
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

/// Brings `config` to what is `wanted`, as far as that can be changed.
pub fn bring(config: &mut Config, wanted: &Config) {
    take(config, wanted, |_| true);
}

fn take(config: &mut Config, wanted: &Config, is_meant: fn(&Setting) -> bool) {
    for setting in SETTINGS.iter().filter(|setting| is_meant(setting)) {
        if let Some(take) = setting.take {
            take(config, wanted);
        }
    }
    config.metadata = explained(&config.metadata, wanted, config.num_replicas);
}

/// The metadata `is` of a stream in `replicas` copies with what is `wanted`; thresholds of the
/// monitoring stay as an operator has them.
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

/// Whether it is what a service insists on.
fn is_as_wanted(is: &Config, wanted: &Config) -> bool {
    let mut insisted = is.clone();
    take(&mut insisted, wanted, |setting| setting.is_insisted_on);
    insisted == *is
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
            "what cannot be changed stays"
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
        assert!(is_as_wanted(&soft, &wanted));
        let other = Config {
            allow_direct: false,
            ..soft
        };
        assert!(!is_as_wanted(&other, &wanted));
    }

    #[test]
    fn a_stream_that_an_operator_has_in_three_copies_is_checked_for_three() {
        let wanted = settings("sensors", 1);
        let mut is = Config {
            num_replicas: 3,
            ..wanted.clone()
        };
        take(&mut is, &wanted, |setting| setting.is_insisted_on);
        assert_eq!(is.num_replicas, 3);
        assert_eq!(is.metadata["io.nats.monitor.peer-expect"], "3");
        assert!(is_as_wanted(&is, &wanted));
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
