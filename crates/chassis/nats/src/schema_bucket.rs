//! The settings of the bucket for the schemas of sources.

use std::time::Duration;

use async_nats::jetstream::stream::{self, DiscardPolicy, StorageType};
use headwater_event::schema::BUCKET;

use crate::{bus, monitor};

/// How many versions of a source's schema the bucket keeps, so that the operator can see changes.
const HISTORY: i64 = 5;

/// The server's default for a bucket.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

/// The settings of the stream under the bucket: those of any KV bucket, with a description and
/// metadata for `nats kv info` and `nats stream info`.
pub fn bucket(replicas: usize) -> stream::Config {
    let mut metadata = bus::metadata([("kind", "schemas")]);
    monitor::merge(&mut metadata, &monitor::of_stream(replicas));
    stream::Config {
        name: format!("KV_{BUCKET}"),
        description: Some(
            "The schemas of each source's events; recreated by the services if lost".to_owned(),
        ),
        subjects: vec![format!("$KV.{BUCKET}.>")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: HISTORY,
        max_message_size: -1,
        max_consumers: -1,
        deny_delete: true,
        // A roll-up of one key could delete the others.
        allow_rollup: false,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        num_replicas: replicas,
        metadata,
        ..stream::Config::default()
    }
}
