//! Limits of the broker: how many events it accepts at once, and which limit refuses an event.
//!
//! A server's limits can change at any time, and only its answers show them. A refused batch is
//! never sent again unchanged: it shrinks to the size that the answer names, or to half. In the end
//! an event is published alone, and its refusal names the limit.

use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::Config;
use headwater_event::{EventId, Row};

/// How rows are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishMode {
    /// Each row separately, all in flight at once.
    Pipelined,
    /// All or none.
    Batch,
}

/// The broker's answer when a limit or a setting refuses events.
#[derive(Debug, Clone)]
pub(crate) struct Limited {
    pub(crate) code: ErrorCode,
    pub(crate) text: String,
    /// The first refused row of a pipeline; 0 for a batch.
    pub(crate) row: usize,
}

/// The most events in one batch: the server's default limit.
pub(crate) const BATCH_MAX: usize = 1000;

/// The smallest batch that is faster than single publishes. An atomic batch costs the server about
/// 4 ms however small it is, a pipelined publish about 0.3 ms: with `sync_interval: always`, a
/// batch needs one fsync and each single publish its own.
const BATCH_MIN: usize = 14;

/// How long a batch stays at the size that the broker accepted before a larger one is tried: at
/// first, and at most after repeated refusals.
const GROW_AFTER_MIN: Duration = Duration::from_secs(30);
const GROW_AFTER_MAX: Duration = Duration::from_mins(10);

/// Limits of the bytes published at once. Within them, the size is what the link carries in
/// [`CARRYING`], so that the publication finishes within one request's timeout.
const BYTES_MAX: u64 = 8 * 1024 * 1024;
const BYTES_MIN: u64 = 16 * 1024;

/// How long the link may take for one publication, roughly.
const CARRYING: Duration = Duration::from_secs(1);

/// What the headers of one event add to its payload, without their values.
const HEADER_BYTES: usize =
    "NATS/1.0\r\nNats-Msg-Id: \r\nNats-Expected-Last-Sequence: \r\n\r\n".len();
const TRACE_BYTES: usize = "traceparent: \r\n".len();

/// Refusals that depend on how many events are published at once.
const OF_BATCHES: [ErrorCode; 4] = [
    ErrorCode::ATOMIC_PUBLISH_DISABLED,
    ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH,
    ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH,
    ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT,
];

/// Refusals of a single event, however it is published.
const OF_EVENTS: [ErrorCode; 7] = [
    ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
    ErrorCode::STREAM_STORE_FAILED,
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::MEMORY_RESOURCES_EXCEEDED,
    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ErrorCode::INSUFFICIENT_RESOURCES,
    ErrorCode::STREAM_SEALED,
];

/// Whether the refusal is due to a limit or a setting: the same event is refused until that
/// changes.
pub(crate) fn is_limit(code: ErrorCode) -> bool {
    OF_BATCHES.contains(&code) || OF_EVENTS.contains(&code)
}

/// How many events the broker accepts at once, as far as it has answered.
#[derive(Debug)]
pub(crate) struct Fit {
    /// The most events in one batch; below 2, no batches.
    batch: usize,
    /// The bytes of events that the link carries in [`CARRYING`].
    bytes: u64,
    /// Whether the last event was refused: then the next one is tried alone.
    is_probing: bool,
    /// When a larger batch is tried, and how long the attempt after that waits.
    grows: Option<Instant>,
    grow_after: Duration,
}

impl Fit {
    pub(crate) fn new() -> Self {
        Self {
            batch: BATCH_MAX,
            bytes: BYTES_MAX,
            is_probing: false,
            grows: None,
            grow_after: GROW_AFTER_MIN,
        }
    }

    /// How many of the `waiting` rows to publish, and how, to a stream with `copies` replicas.
    ///
    /// A pipeline asks the server to check the id of the row before. That is unsafe with several
    /// replicas: each replica checks for itself, and one that finds another id stops participating
    /// (nats-server 2.15.1). A replica that caught up from a snapshot knows no ids, and stops at an
    /// event that the others accept. See ADR 9.
    pub(crate) fn of(&self, waiting: usize, copies: usize) -> (PublishMode, usize) {
        let batch_min = if copies > 1 { 2 } else { BATCH_MIN };
        let batch = waiting.min(self.batch);
        if self.is_probing {
            (PublishMode::Pipelined, 1)
        } else if batch >= batch_min {
            (PublishMode::Batch, batch)
        } else if copies > 1 {
            (PublishMode::Pipelined, 1)
        } else {
            (PublishMode::Pipelined, waiting.min(BATCH_MAX))
        }
    }

    /// Makes batches smaller after a batch of `count` rows was refused. Returns the new size at the
    /// first of several refusals, for the log.
    pub(crate) fn shrink(&mut self, count: usize, limited: &Limited) -> Option<usize> {
        let named = match limited.code {
            ErrorCode::ATOMIC_PUBLISH_DISABLED | ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT => {
                Some(0)
            }
            ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH => named(&limited.text),
            _ => None,
        };
        let was_tried = self.grow_after > GROW_AFTER_MIN;
        // A named size helps only if it is smaller than what was refused.
        self.batch = named.filter(|&named| named < count).unwrap_or(count / 2);
        self.grows = Some(Instant::now() + self.grow_after);
        self.grow_after = (self.grow_after * 2).min(GROW_AFTER_MAX);
        (!was_tried).then_some(self.batch)
    }

    /// Records that an event was refused alone, or as the first of a pipeline.
    pub(crate) fn probe(&mut self) {
        // The event, not their size, caused the refusal of batches.
        *self = Self {
            is_probing: true,
            bytes: self.bytes,
            ..Self::new()
        };
    }

    /// The most bytes of events to publish at once.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that the outcome of rows of `bytes` is unknown: the link may be too slow for them.
    pub(crate) fn note_unknown(&mut self, bytes: u64) {
        self.bytes = (bytes / 2).clamp(BYTES_MIN, self.bytes);
    }

    /// Records that rows of `bytes` were stored; lets batches grow again when it is time.
    pub(crate) fn note_stored(&mut self, bytes: u64, took: Duration) {
        let carried = if took > CARRYING {
            u128::from(bytes) * CARRYING.as_micros() / took.as_micros()
        } else {
            u128::from(self.bytes) * 2
        };
        let carried = u64::try_from(carried).unwrap_or(u64::MAX);
        self.bytes = carried.clamp(BYTES_MIN, BYTES_MAX);
        self.is_probing = false;
        if self.grows.is_some_and(|at| Instant::now() >= at) {
            self.batch = (self.batch * 2).clamp(BATCH_MIN, BATCH_MAX);
            self.grows = (self.batch < BATCH_MAX).then(|| Instant::now() + GROW_AFTER_MIN);
            if self.grows.is_none() {
                self.grow_after = GROW_AFTER_MIN;
            }
        }
    }
}

/// The number in "atomic publish batch is too large: 100", if present.
fn named(text: &str) -> Option<usize> {
    let number = text.split("too large: ").nth(1)?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// How many of `rows`, from the first on, have at most `max` bytes each, if the first expects the
/// sequence `expected`. Also the size of the first row that does not fit.
pub(crate) fn fitting(
    rows: &[Row],
    id: impl Fn(&Row) -> EventId,
    expected: u64,
    max: usize,
) -> (usize, Option<usize>) {
    let mut sizes = rows.iter().zip(expected..);
    let too_large = sizes.find_map(|(row, expected)| {
        let bytes = bytes(row, &id(row), expected);
        (bytes > max).then_some((row.position, bytes))
    });
    match too_large {
        Some((position, bytes)) => {
            let before = rows.iter().take_while(|row| row.position < position);
            (before.count(), Some(bytes))
        }
        None => (rows.len(), None),
    }
}

/// The size of an event with its headers, as the server counts it, if published alone.
fn bytes(row: &Row, id: &EventId, expected: u64) -> usize {
    let trace = row.traceparent.as_ref();
    let trace = trace.map_or(0, |trace| TRACE_BYTES + trace.len());
    HEADER_BYTES + id.to_string().len() + expected.to_string().len() + trace + row.payload.len()
}

/// The largest event that the broker accepts, and the name of the limit.
pub fn event_max(config: &Config, payload_max: usize) -> (usize, String) {
    let of_stream = usize::try_from(config.max_message_size).ok();
    match of_stream.filter(|&max| max > 0 && max < payload_max) {
        Some(max) => (max, stream_limit(config, "max_msg_size", max)),
        None => (
            payload_max,
            format!("max_payload of the broker ({payload_max} bytes)"),
        ),
    }
}

/// Reports that the event at `position` is too large, and what to do.
pub(crate) fn too_large(position: u64, bytes: usize, limit: &str) -> String {
    format!(
        "position {position} has {bytes} bytes with its headers, more than {limit}: {}",
        raise(limit)
    )
}

/// Reports which limit refuses the event at `position`, and what to do.
pub(crate) fn refused(position: u64, limited: &Limited, config: &Config) -> String {
    let of_stream = |name, value: i64| stream_limit(config, name, value);
    let text = &limited.text;
    let limit = match limited.code {
        ErrorCode::STREAM_STORE_FAILED if text.contains("messages per subject") => {
            of_stream("max_msgs_per_subject", config.max_messages_per_subject)
        }
        ErrorCode::STREAM_STORE_FAILED if text.contains("maximum messages") => {
            of_stream("max_msgs", config.max_messages)
        }
        ErrorCode::STREAM_STORE_FAILED if text.contains("maximum bytes") => {
            of_stream("max_bytes", config.max_bytes)
        }
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
            of_stream("max_msg_size", config.max_message_size.into())
        }
        ErrorCode::INSUFFICIENT_RESOURCES => {
            "max_file_store of the broker (`jetstream { max_file_store: … }`)".to_owned()
        }
        ErrorCode::STORAGE_RESOURCES_EXCEEDED | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => {
            "the file storage of the account (`jetstream { max_file: … }`)".to_owned()
        }
        ErrorCode::MEMORY_RESOURCES_EXCEEDED => {
            "the memory storage of the account (`jetstream { max_mem: … }`)".to_owned()
        }
        _ => return format!("position {position} is refused: {text}"),
    };
    let advice = raise(&limit);
    format!("position {position} is refused by {limit}: {advice} ({text})")
}

fn stream_limit(config: &Config, name: &str, value: impl std::fmt::Display) -> String {
    format!("{name} of the stream {} ({value})", config.name)
}

/// How to raise a limit.
fn raise(limit: &str) -> String {
    let of_stream = limit.split_once(" of the stream ");
    match of_stream.and_then(|(name, rest)| Some((name, rest.split(' ').next()?))) {
        Some((name, stream)) => {
            let flag = name.replace('_', "-");
            format!("raise it (`nats stream edit {stream} --{flag}=-1` removes it)")
        }
        None => "raise it in the server's configuration".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: ErrorCode, text: &str) -> Limited {
        Limited {
            code,
            text: text.to_owned(),
            row: 0,
        }
    }

    #[test]
    fn no_id_is_checked_where_there_are_several_copies() {
        for (rows, copies, way) in [
            (1, 1, (PublishMode::Pipelined, 1)),
            (13, 1, (PublishMode::Pipelined, 13)),
            (14, 1, (PublishMode::Batch, 14)),
            (2000, 1, (PublishMode::Batch, 1000)),
            (1, 3, (PublishMode::Pipelined, 1)),
            (2, 3, (PublishMode::Batch, 2)),
        ] {
            assert_eq!(
                Fit::new().of(rows, copies),
                way,
                "{rows} rows, {copies} copies"
            );
        }
    }

    #[test]
    fn a_batch_shrinks_to_what_is_named_or_to_half_and_to_none() {
        let too_large = ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH;
        let mut fit = Fit::new();
        let text = "atomic publish batch is too large: 100 (code 400, error code 10199)";
        fit.shrink(1000, &refused(too_large, text));
        assert_eq!(fit.of(1000, 1), (PublishMode::Batch, 100));
        for text in ["too large", "too large: 100 (code 400)"] {
            let mut fit = Fit::new();
            fit.shrink(100, &refused(too_large, text));
            assert_eq!(fit.of(1000, 1), (PublishMode::Batch, 50), "{text}");
        }
        let mut fit = Fit::new();
        fit.shrink(
            1000,
            &refused(ErrorCode::ATOMIC_PUBLISH_DISABLED, "disabled"),
        );
        assert_eq!(fit.of(1000, 1), (PublishMode::Pipelined, 1000));
        assert_eq!(
            fit.of(1000, 3),
            (PublishMode::Pipelined, 1),
            "no ids are checked"
        );
    }

    #[test]
    fn a_batch_grows_again_when_it_is_time() {
        let mut fit = Fit::new();
        fit.shrink(
            1000,
            &refused(ErrorCode::ATOMIC_PUBLISH_DISABLED, "disabled"),
        );
        fit.note_stored(100, Duration::ZERO);
        assert_eq!(fit.of(1000, 1), (PublishMode::Pipelined, 1000), "not yet");
        for batch in [14, 28, 56] {
            fit.grows = Some(Instant::now());
            fit.note_stored(100, Duration::ZERO);
            assert_eq!(fit.of(1000, 3), (PublishMode::Batch, batch));
        }
    }

    #[test]
    fn after_a_refused_event_one_alone_is_tried() {
        let mut fit = Fit::new();
        fit.shrink(
            1000,
            &refused(ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH, "x"),
        );
        fit.probe();
        assert_eq!(fit.of(1000, 1), (PublishMode::Pipelined, 1));
        fit.note_stored(100, Duration::ZERO);
        assert_eq!(fit.of(1000, 1), (PublishMode::Batch, 1000));
    }

    #[test]
    fn a_refusal_names_the_limit_and_what_to_do() {
        let config = Config {
            name: "SENSORS".to_owned(),
            max_messages: 3,
            max_message_size: 900,
            ..Config::default()
        };
        let full = refused(
            ErrorCode::STREAM_STORE_FAILED,
            "maximum messages exceeded (code 503)",
        );
        let text = super::refused(4, &full, &config);
        assert!(
            text.contains("position 4 is refused by max_msgs of the stream SENSORS (3)"),
            "{text}"
        );
        assert!(
            text.contains("nats stream edit SENSORS --max-msgs=-1"),
            "{text}"
        );
        let (max, limit) = event_max(&config, 1 << 20);
        assert_eq!(max, 900);
        assert!(
            too_large(7, 1000, &limit).contains("--max-msg-size=-1"),
            "{limit}"
        );
        let (max, limit) = event_max(&Config::default(), 65_536);
        assert_eq!(
            (max, &*limit),
            (65_536, "max_payload of the broker (65536 bytes)")
        );
    }

    #[test]
    fn what_is_published_at_once_fits_what_the_link_carries_in_a_second() {
        let mut fit = Fit::new();
        fit.note_unknown(300_000);
        assert_eq!(fit.bytes(), 150_000);
        fit.note_stored(150_000, Duration::from_secs(5));
        assert_eq!(fit.bytes(), 30_000);
        fit.note_unknown(1_000);
        assert_eq!(fit.bytes(), BYTES_MIN);
        for _ in 0..20 {
            fit.note_stored(BYTES_MIN, Duration::from_millis(100));
        }
        assert_eq!(fit.bytes(), BYTES_MAX);
    }
}
