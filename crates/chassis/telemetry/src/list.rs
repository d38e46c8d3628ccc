//! The metrics of the chassis: name, unit, help, and where the buckets of the histograms are.
//!
//! `docs/metrics.md` lists the same, with their labels; a test compares that page with what
//! running services say.

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

/// A metric's name, its unit, and what it says.
type Described = (&'static str, Unit, &'static str);

/// The same, with the upper bounds of its buckets.
type Bucketed = (&'static str, Unit, &'static str, &'static [f64]);

/// What only grows.
const COUNTERS: &[Described] = &[
    (
        "headwater_relay_published_total",
        Unit::Count,
        "Events that the relay stored in the stream",
    ),
    (
        "headwater_relay_republished_total",
        Unit::Count,
        "Events that the stream had acknowledged and lost, and that were published again",
    ),
    (
        "headwater_relay_purged_total",
        Unit::Count,
        "Events that are gone from the beginning of the stream; the outbox has them",
    ),
    (
        "headwater_projection_applied_total",
        Unit::Count,
        "Events applied",
    ),
    (
        "headwater_projection_skipped_total",
        Unit::Count,
        "Events that came once more and were known",
    ),
    (
        "headwater_projection_gap_events_total",
        Unit::Count,
        "Events that the stream did not have, fetched from the source's outbox",
    ),
    (
        "headwater_projection_manual_total",
        Unit::Count,
        "Events applied that somebody published by hand, without a position",
    ),
    (
        "headwater_projection_foreign_epoch_total",
        Unit::Count,
        "Events refused because the source does not have their epoch",
    ),
    (
        "headwater_projection_altered_total",
        Unit::Count,
        "Events that came again at a known position and are not what the outbox has; skipped",
    ),
    (
        "headwater_dead_letters_total",
        Unit::Count,
        "Events parked as dead letters, those that wait behind another one among them",
    ),
    (
        "headwater_rebuilds_total",
        Unit::Count,
        "Rebuilds that have taken over",
    ),
    (
        "headwater_database_refused_total",
        Unit::Count,
        "Writes answered with 503: the queue was full",
    ),
    (
        "headwater_log_dropped_total",
        Unit::Count,
        "Log lines that nobody took: too many waited, or writing one failed",
    ),
    (
        "headwater_http_connection_limit_reached_total",
        Unit::Count,
        "How often the connection cap was reached: another connection was closed for the next client, or it waited",
    ),
    (
        "headwater_http_connections_closed_total",
        Unit::Count,
        "Connections that the server closed: idle (for another client), stalled (for another client, or its memory), slow (it did not take its answer in time), refused (its address has too many)",
    ),
    (
        "headwater_nats_connects_total",
        Unit::Count,
        "How often a connection to NATS came up",
    ),
    (
        "headwater_request_reply_stray_answers_total",
        Unit::Count,
        "Answers that nobody waited for: too late, or to no question of this process",
    ),
    (
        "headwater_trace_spans_total",
        Unit::Count,
        "Spans by what became of them: exported, dropped (the queue was full), failed",
    ),
    (
        "process_cpu_seconds_total",
        Unit::Seconds,
        "Processor time of the process, in whole seconds",
    ),
];

/// What goes up and down.
const GAUGES: &[Described] = &[
    (
        "headwater_build_info",
        Unit::Count,
        "Always 1; the labels say which program this is",
    ),
    (
        "headwater_component_state",
        Unit::Count,
        "A part of the service, as /readyz?verbose has it: 0 ok, 1 degraded, 2 failed",
    ),
    (
        "headwater_nats_connected",
        Unit::Count,
        "Whether the connection to NATS is up",
    ),
    (
        "headwater_relay_stopped",
        Unit::Count,
        "Whether the relay stands still until a person acts: a contradiction, or a limit of the broker",
    ),
    (
        "headwater_outbox_head",
        Unit::Count,
        "Position of the newest event in the outbox",
    ),
    (
        "headwater_backup_timestamp_seconds",
        Unit::Seconds,
        "When the newest backup of the database was begun, in seconds since 1970; 0: never",
    ),
    (
        "headwater_outbox_unpublished",
        Unit::Count,
        "Events in the outbox that are not yet known to be in the stream",
    ),
    (
        "headwater_outbox_unpublished_seconds",
        Unit::Seconds,
        "Age of the oldest of these; 0 without any",
    ),
    (
        "headwater_projection_position",
        Unit::Count,
        "Position up to which the source's events are applied",
    ),
    (
        "headwater_stream_replicas",
        Unit::Count,
        "Copies that brokers should keep of a stream",
    ),
    (
        "headwater_stream_replicas_current",
        Unit::Count,
        "Copies that are up to date, the leader's among them; 0 without a leader",
    ),
    (
        "headwater_jetstream_storage_bytes",
        Unit::Bytes,
        "What is stored by the broker, or the account, that is nearest to its limit",
    ),
    (
        "headwater_jetstream_storage_limit_bytes",
        Unit::Bytes,
        "How much that one may store; 0 where no limit is known",
    ),
    (
        "headwater_projection_lag_events",
        Unit::Count,
        "Events in the source's outbox that are not applied; as last seen while it is away",
    ),
    (
        "headwater_projection_ahead_events",
        Unit::Count,
        "Events that the projection has applied beyond the end of the source's outbox",
    ),
    (
        "headwater_projection_lag_seconds",
        Unit::Seconds,
        "Age of the oldest of these; 0 without any",
    ),
    (
        "headwater_projection_complete",
        Unit::Count,
        "Whether the tables were folded to the end of all sources once",
    ),
    (
        "headwater_dead_letters_waiting",
        Unit::Count,
        "Dead letters that wait for a person",
    ),
    (
        "headwater_rebuild_running",
        Unit::Count,
        "Whether it is folded once more beside, for a rebuild or for verify",
    ),
    (
        "headwater_rebuild_progress",
        Unit::Count,
        "How far that is, from 0 to 1; 1 when none is running",
    ),
    (
        "headwater_rebuild_failed",
        Unit::Count,
        "Whether the last one gave up; the live store is as it was",
    ),
    (
        "headwater_rebuild_differences",
        Unit::Count,
        "Rows in which the live store differed from the last fold it was compared with",
    ),
    (
        "headwater_verify_last_success_timestamp_seconds",
        Unit::Seconds,
        "When outboxes, streams and this projection were last found to agree, in seconds since 1970; before the first time, when that was first looked for",
    ),
    (
        "headwater_database_queue_length",
        Unit::Count,
        "Writes that wait for the writer thread",
    ),
    (
        "headwater_database_bytes",
        Unit::Bytes,
        "Size of the database file",
    ),
    (
        "headwater_database_wal_bytes",
        Unit::Bytes,
        "Size of its write-ahead log",
    ),
    (
        "headwater_database_free_bytes",
        Unit::Bytes,
        "What the file system of the database has left",
    ),
    (
        "headwater_http_connections",
        Unit::Count,
        "HTTP connections that are open",
    ),
    (
        "headwater_http_buffered_bytes",
        Unit::Bytes,
        "What answers hold in memory until clients have taken them",
    ),
    (
        "headwater_http_in_flight",
        Unit::Count,
        "HTTP requests that are being answered",
    ),
    (
        "process_resident_memory_bytes",
        Unit::Bytes,
        "Memory that the process has in RAM",
    ),
    (
        "process_virtual_memory_bytes",
        Unit::Bytes,
        "Memory that the process has addresses for",
    ),
    ("process_open_fds", Unit::Count, "Open file descriptors"),
    (
        "process_max_fds",
        Unit::Count,
        "How many file descriptors may be open",
    ),
    ("process_threads", Unit::Count, "Threads of the process"),
    (
        "process_start_time_seconds",
        Unit::Seconds,
        "When the process was started, in seconds since 1970",
    ),
];

/// From a tenth of a millisecond, a read from memory, to the longest that a request may take.
const REQUEST: &[f64] = &[
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0,
];

/// From the fsync of a fast disk to one that hangs.
const COMMIT: &[f64] = &[
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0,
];

/// From an event that goes through at once (clocks here count milliseconds) to an hour of
/// catching up.
const DELAY: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
    3600.0,
];

/// Up to the largest group that a commit may have by default.
const GROUP: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// What is measured again and again.
const HISTOGRAMS: &[Bucketed] = &[
    (
        "headwater_relay_delay_seconds",
        Unit::Seconds,
        "From commit to stored in the stream, of the oldest event of each publication",
        DELAY,
    ),
    (
        "headwater_projection_delay_seconds",
        Unit::Seconds,
        "From stored in the stream to applied, of the oldest event of each batch",
        DELAY,
    ),
    (
        "headwater_projection_freshness_seconds",
        Unit::Seconds,
        "From commit at the source to applied here, of one event every few seconds",
        DELAY,
    ),
    (
        "headwater_database_commit_seconds",
        Unit::Seconds,
        "How long a commit took, its fsync included",
        COMMIT,
    ),
    (
        "headwater_database_group_size",
        Unit::Count,
        "Writes that shared one commit",
        GROUP,
    ),
    (
        "headwater_http_request_seconds",
        Unit::Seconds,
        "How long an HTTP request took",
        REQUEST,
    ),
];

/// A builder that knows the buckets.
pub(super) fn builder() -> PrometheusBuilder {
    let builder = PrometheusBuilder::new()
        .set_buckets(REQUEST)
        .expect("the buckets are not empty");
    HISTOGRAMS
        .iter()
        .fold(builder, |builder, (name, _, _, buckets)| {
            builder
                .set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)
                .expect("the buckets are not empty")
        })
}

/// Tells the recorder what each metric says.
pub(super) fn describe() {
    for (name, unit, help) in COUNTERS {
        metrics::describe_counter!(*name, *unit, *help);
    }
    for (name, unit, help) in GAUGES {
        metrics::describe_gauge!(*name, *unit, *help);
    }
    for (name, unit, help, _) in HISTOGRAMS {
        metrics::describe_histogram!(*name, *unit, *help);
    }
}
