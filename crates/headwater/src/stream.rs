//! A source's stream: its name, its settings, and making it.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, RetentionPolicy, StorageType, Stream,
};

use crate::bus::{self, Bus};

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
        metadata: bus::metadata([("source", source), ("kind", "events")]),
        ..Config::default()
    }
}

/// Makes `source`'s stream if it is not there, brings an older one to today's settings, and has
/// as many copies kept of it as are wanted.
pub(crate) async fn ensure(bus: &Bus, source: &str) -> anyhow::Result<Stream> {
    let wanted = settings(source, bus.replicas);
    match bus.jetstream.get_stream(&wanted.name).await {
        Ok(stream) => {
            let replicas = wanted.num_replicas;
            let stream = if is_as_wanted(&stream.cached_info().config, &wanted) {
                stream
            } else {
                tracing::info!(stream = wanted.name, "bringing the stream to its settings");
                let mut config = stream.cached_info().config.clone();
                apply(&mut config, wanted);
                bus.jetstream.update_stream(&config).await?;
                bus.jetstream.get_stream(&config.name).await?
            };
            with_copies(bus, stream, replicas).await
        }
        Err(error) if is_missing(&error.kind()) => {
            let stream = bus.jetstream.create_stream(wanted).await?;
            tracing::info!(stream = stream.cached_info().config.name, "made the stream");
            Ok(stream)
        }
        Err(error) => Err(error.into()),
    }
}

/// Has at least `replicas` copies kept of `stream`. More stay: an operator wanted them, perhaps
/// while other services were still told of fewer. Where there are not enough servers for it, the
/// stream is of use as it is.
async fn with_copies(bus: &Bus, stream: Stream, replicas: usize) -> anyhow::Result<Stream> {
    let mut config = stream.cached_info().config.clone();
    let before = config.num_replicas;
    if before >= replicas {
        return Ok(stream);
    }
    config.num_replicas = replicas;
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

fn is_missing(kind: &GetStreamErrorKind) -> bool {
    matches!(kind, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// What this program insists on; limits, placement and the rest stay as an operator set them.
fn is_as_wanted(is: &Config, wanted: &Config) -> bool {
    is.subjects == wanted.subjects
        && is.description == wanted.description
        && is.discard == wanted.discard
        && is.duplicate_window == wanted.duplicate_window
        && is.allow_direct == wanted.allow_direct
        && is.allow_atomic_publish == wanted.allow_atomic_publish
        && wanted
            .metadata
            .iter()
            .all(|(key, value)| is.metadata.get(key) == Some(value))
}

fn apply(config: &mut Config, wanted: Config) {
    config.subjects = wanted.subjects;
    config.description = wanted.description;
    config.discard = wanted.discard;
    config.duplicate_window = wanted.duplicate_window;
    config.allow_direct = wanted.allow_direct;
    config.allow_atomic_publish = wanted.allow_atomic_publish;
    config.metadata.extend(wanted.metadata);
}
