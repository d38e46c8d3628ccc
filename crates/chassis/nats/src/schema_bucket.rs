//! The settings of the bucket in which sources keep what their events look like.

use std::time::Duration;

use async_nats::jetstream::stream::{self, DiscardPolicy, StorageType};
use headwater_event::schema::BUCKET;

use crate::{bus, monitor};

/// How many older schemas of a source the bucket keeps, for a person who wonders what changed.
const HISTORY: i64 = 5;

/// The server's own default, which it gives a bucket.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);

/// The settings of the stream under the bucket, which are those of any KV bucket, and such that
/// `nats kv info` and `nats stream info` explain what it is.
pub fn bucket(replicas: usize) -> stream::Config {
    let mut metadata = bus::metadata([("kind", "schemas")]);
    monitor::merge(&mut metadata, &monitor::of_stream(replicas));
    stream::Config {
        name: format!("KV_{BUCKET}"),
        description: Some(
            "What the events of each source look like; made anew by the services".to_owned(),
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
        // One key's roll-up would take away those of the others.
        allow_rollup: false,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        num_replicas: replicas,
        metadata,
        ..stream::Config::default()
    }
}
