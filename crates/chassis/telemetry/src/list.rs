//! The metrics of the chassis: name, unit, help, and the buckets of the histograms.
//!
//! `docs/metrics.md` lists the same, with their labels; a test compares that page with running
//! services.

use metrics::Unit;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

/// A metric's name, unit and help text.
type Described = (&'static str, Unit, &'static str);

/// The same, with the upper bounds of its buckets.
type Bucketed = (&'static str, Unit, &'static str, &'static [f64]);

const COUNTERS: &[Described] = &[
    (
        "headwater_relay_published_total",
        Unit::Count,
        "Events that the relay stored in the stream",
    ),
    (
        "headwater_relay_republished_total",
        Unit::Count,
        "Events published again because the stream had acknowledged and lost them",
    ),
    (
        "headwater_relay_purged_total",
        Unit::Count,
        "Events missing from the beginning of the stream; the outbox has them",
    ),
    (
        "headwater_projection_applied_total",
        Unit::Count,
        "Events applied",
    ),
    (
        "headwater_projection_skipped_total",
        Unit::Count,
        "Events received again and skipped because they had been applied",
    ),
    (
        "headwater_projection_gap_events_total",
        Unit::Count,
        "Events missing from the stream and fetched from the source's outbox",
    ),
    (
        "headwater_projection_manual_total",
        Unit::Count,
        "Events without a position, published by hand, that were applied",
    ),
    (
        "headwater_projection_foreign_epoch_total",
        Unit::Count,
        "Events refused because the source does not have their epoch",
    ),
    (
        "headwater_projection_altered_total",
        Unit::Count,
        "Events received again at a known position whose content differs from the outbox; skipped",
    ),
    (
        "headwater_dead_letters_total",
        Unit::Count,
        "Events stored as dead letters, including those that wait behind another one",
    ),
    (
        "headwater_effect_attempts_total",
        Unit::Count,
        "Attempts to perform an intent: done, retried (failed, to be tried again), dead (failed for good)",
    ),
    (
        "headwater_rebuilds_total",
        Unit::Count,
        "Rebuilds that have replaced the live store",
    ),
    (
        "headwater_database_refused_total",
        Unit::Count,
        "Writes answered with 503 because the queue was full",
    ),
    (
        "headwater_log_dropped_total",
        Unit::Count,
        "Log lines dropped because too many waited or writing one failed",
    ),
    (
        "headwater_http_connection_limit_reached_total",
        Unit::Count,
        "Clients that found the connection limit reached: another connection was closed for them, or they waited",
    ),
    (
        "headwater_http_connections_closed_total",
        Unit::Count,
        "Connections closed by the server: idle (for another client), stalled (for another client, or its memory), slow (the client did not take its answer in time), refused (its address has too many)",
    ),
    (
        "headwater_nats_connects_total",
        Unit::Count,
        "Connections to NATS that were established",
    ),
    (
        "headwater_request_reply_stray_answers_total",
        Unit::Count,
        "Answers that no request waited for: too late, or not to a request of this process",
    ),
    (
        "headwater_trace_spans_total",
        Unit::Count,
        "Spans by outcome: exported, dropped (the queue was full), failed",
    ),
    (
        "process_cpu_seconds_total",
        Unit::Seconds,
        "Processor time of the process, in whole seconds",
    ),
];

const GAUGES: &[Described] = &[
    (
        "headwater_build_info",
        Unit::Count,
        "Always 1; the labels name the program and its version",
    ),
    (
        "headwater_component_state",
        Unit::Count,
        "State of a component, as in /readyz?verbose: 0 ok, 1 degraded, 2 failed",
    ),
    (
        "headwater_nats_connected",
        Unit::Count,
        "1 while the connection to NATS is up, otherwise 0",
    ),
    (
        "headwater_relay_stopped",
        Unit::Count,
        "1 if the relay has stopped until an operator acts (a contradiction, or a limit of the broker), otherwise 0",
    ),
    (
        "headwater_outbox_head",
        Unit::Count,
        "Position of the newest event in the outbox",
    ),
    (
        "headwater_backup_timestamp_seconds",
        Unit::Seconds,
        "Start time of the newest backup of the database, in seconds since 1970; 0 if there is none",
    ),
    (
        "headwater_outbox_unpublished",
        Unit::Count,
        "Events in the outbox that are not known to be in the stream",
    ),
    (
        "headwater_outbox_unpublished_seconds",
        Unit::Seconds,
        "Age of the oldest event that is not known to be in the stream; 0 if there is none",
    ),
    (
        "headwater_projection_position",
        Unit::Count,
        "Position up to which the source's events are applied",
    ),
    (
        "headwater_projection_upgrade_needed",
        Unit::Count,
        "1 while the source's next event is in a newer version than this service knows, which must be upgraded; otherwise 0",
    ),
    (
        "headwater_stream_replicas",
        Unit::Count,
        "Replicas that the stream should have",
    ),
    (
        "headwater_stream_replicas_current",
        Unit::Count,
        "Replicas that are up to date, including the leader; 0 without a leader",
    ),
    (
        "headwater_jetstream_storage_bytes",
        Unit::Bytes,
        "Bytes stored by the broker, or the account, that is nearest to its limit",
    ),
    (
        "headwater_jetstream_storage_limit_bytes",
        Unit::Bytes,
        "Storage limit of that broker or account; 0 if no limit is known",
    ),
    (
        "headwater_projection_lag_events",
        Unit::Count,
        "Events in the source's outbox that are not applied; the last known value while the source is down",
    ),
    (
        "headwater_projection_ahead_events",
        Unit::Count,
        "Events applied beyond the end of the source's outbox",
    ),
    (
        "headwater_projection_lag_seconds",
        Unit::Seconds,
        "Age of the oldest event that is not applied; 0 if there is none",
    ),
    (
        "headwater_projection_complete",
        Unit::Count,
        "1 once the read store has caught up with all sources for the first time, before that 0",
    ),
    (
        "headwater_dead_letters_waiting",
        Unit::Count,
        "Dead letters that wait for an operator",
    ),
    (
        "headwater_effect_waiting",
        Unit::Count,
        "Intents in the ledger, including timers that are not due",
    ),
    (
        "headwater_effect_oldest_seconds",
        Unit::Seconds,
        "Time since the oldest intent was due first; 0 if none is due",
    ),
    (
        "headwater_rebuild_running",
        Unit::Count,
        "1 while a rebuild or a verification runs, otherwise 0",
    ),
    (
        "headwater_rebuild_progress",
        Unit::Count,
        "Progress of the rebuild or verification, from 0 to 1; 1 if none runs",
    ),
    (
        "headwater_rebuild_failed",
        Unit::Count,
        "1 if the last rebuild or verification failed or was stopped, and the live store is unchanged; otherwise 0",
    ),
    (
        "headwater_rebuild_differences",
        Unit::Count,
        "Rows in which the live store differed from the rebuilt one at the last comparison",
    ),
    (
        "headwater_verify_last_success_timestamp_seconds",
        Unit::Seconds,
        "Time of the last verification that found outboxes, streams and this projection to agree, in seconds since 1970; until then, the time of the service's first check",
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
        "Size of the write-ahead log",
    ),
    (
        "headwater_database_free_bytes",
        Unit::Bytes,
        "Free bytes in the file system of the database",
    ),
    (
        "headwater_http_streams",
        Unit::Count,
        "Open streams of events, of pages that follow",
    ),
    (
        "headwater_http_connections",
        Unit::Count,
        "Open HTTP connections",
    ),
    (
        "headwater_http_buffered_bytes",
        Unit::Bytes,
        "Memory held by answers that clients have not taken yet",
    ),
    (
        "headwater_http_in_flight",
        Unit::Count,
        "HTTP requests in progress",
    ),
    (
        "process_resident_memory_bytes",
        Unit::Bytes,
        "Resident memory of the process",
    ),
    (
        "process_virtual_memory_bytes",
        Unit::Bytes,
        "Virtual memory of the process",
    ),
    ("process_open_fds", Unit::Count, "Open file descriptors"),
    (
        "process_max_fds",
        Unit::Count,
        "Limit of open file descriptors",
    ),
    ("process_threads", Unit::Count, "Threads of the process"),
    (
        "process_start_time_seconds",
        Unit::Seconds,
        "Start time of the process, in seconds since 1970",
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

/// From one millisecond, the resolution of the clocks here, to an hour of catching up.
const DELAY: &[f64] = &[
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
    3600.0,
];

/// Up to the largest group that a commit may have by default.
const GROUP: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

const HISTOGRAMS: &[Bucketed] = &[
    (
        "headwater_relay_delay_seconds",
        Unit::Seconds,
        "Time from commit to stored in the stream, of the oldest event of each publication",
        DELAY,
    ),
    (
        "headwater_projection_delay_seconds",
        Unit::Seconds,
        "Time from stored in the stream to applied, of the oldest event of each batch",
        DELAY,
    ),
    (
        "headwater_projection_freshness_seconds",
        Unit::Seconds,
        "Time from commit at the source to applied here, of one event every few seconds",
        DELAY,
    ),
    (
        "headwater_database_commit_seconds",
        Unit::Seconds,
        "Duration of a commit, including its fsync",
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
        "Duration of an HTTP request",
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

/// Describes each metric to the recorder.
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
