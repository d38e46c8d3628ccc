//! Publishing outbox rows, fenced: a few as pipelined publishes, many as one atomic batch.

use std::sync::Arc;

use anyhow::anyhow;
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL, NATS_BATCH_ID, NATS_BATCH_SEQUENCE,
    NATS_EXPECTED_LAST_SEQUENCE, NATS_MESSAGE_ID,
};
use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{HeaderMap, Request};
use bytes::Bytes;

use crate::bus::Bus;
use crate::crash;
use crate::envelope::EventId;
use crate::outbox::Row;
use crate::telemetry::trace::{self, Span};

/// From how many rows on an atomic batch is faster: one costs the server about 4 ms however small
/// it is, a single publish in a row of them about 0.3 ms, because with `sync_interval: always` a
/// batch has one fsync and each single publish its own.
const BATCH_MIN: usize = 14;

/// How rows are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Each on its own, all under way at once.
    Pipelined,
    /// All or none.
    Batch,
}

impl Way {
    /// The way for so many `rows`, to a stream of which so many `copies` are kept.
    ///
    /// Rows in a pipeline have the server check the id of the one before, which it must not be
    /// asked to where there are several copies: each checks for itself, and one that finds another
    /// id gives up (nats-server 2.15.1). One that was brought up to date as a whole knows no id and
    /// does so at an event that the others take. See ADR 9.
    pub(super) fn of(rows: usize, copies: usize) -> Self {
        let batch_min = if copies > 1 { 2 } else { BATCH_MIN };
        if rows < batch_min {
            Self::Pipelined
        } else {
            Self::Batch
        }
    }
}

/// What became of a publication.
pub(super) enum Outcome {
    /// All rows are stored; the stream ends with this sequence.
    Stored { last_sequence: u64 },
    /// The fence held: the stream does not end where we believed.
    Refused(String),
    /// No answer, or one that does not say. Some rows may be stored, or come to be.
    Unknown(anyhow::Error),
}

/// Publishes `rows`, in order, if the stream still ends with sequence `expected`.
pub(super) async fn rows(
    bus: &Bus,
    way: Way,
    source: &str,
    epoch: &str,
    rows: &[Row],
    expected: u64,
) -> Outcome {
    let (source, epoch): (Arc<str>, Arc<str>) = (source.into(), epoch.into());
    let id = |row: &Row| EventId {
        source: Arc::clone(&source),
        epoch: Arc::clone(&epoch),
        position: row.position,
    };
    let spans = trace::publications(rows);
    let result = match way {
        Way::Pipelined => pipelined(bus, rows, id, &spans, expected).await,
        Way::Batch => atomic_batch(bus, rows, id, &spans, expected).await,
    };
    if let Err(failure) = &result {
        trace::fail_all(&spans, failure);
    }
    match result {
        Ok(ack) if ack.duplicate => Outcome::Unknown(anyhow!(
            "the server's dedupe window still knows an event that the stream does not have"
        )),
        Ok(ack) => Outcome::Stored {
            last_sequence: ack.sequence,
        },
        Err(Failure::Fence(reason)) => Outcome::Refused(reason),
        Err(Failure::Other(error)) => Outcome::Unknown(error),
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("refused: {0}")]
    Fence(String),
    #[error("unknown: {0:#}")]
    Other(anyhow::Error),
}

/// Each row on its own, all of them under way at once, each expecting the one before it.
///
/// By its id, too: the sequence alone would let the second row pass where somebody's event has
/// taken the place of the first, which was refused and would then be missing for ever.
async fn pipelined(
    bus: &Bus,
    rows: &[Row],
    id: impl Fn(&Row) -> EventId,
    spans: &[Span],
    expected: u64,
) -> Result<PublishAck, Failure> {
    let mut under_way: Vec<PublishAckFuture> = Vec::with_capacity(rows.len());
    for (index, (row, expected)) in rows.iter().zip(expected..).enumerate() {
        let mut message = PublishMessage::build()
            .payload(Bytes::copy_from_slice(&row.payload))
            .headers(headers(row, &id(row), &spans[index]))
            .expected_last_sequence(expected);
        if let Some(before) = index.checked_sub(1).map(|before| &rows[before]) {
            message = message.expected_last_message_id(id(before).to_string());
        }
        let publish = bus
            .jetstream
            .send_publish(row.subject.clone(), message)
            .await
            .map_err(publish_failure)?;
        under_way.push(publish);
        if index == rows.len() / 2 {
            crash::point_when_sent("relay.half", &bus.client).await;
        }
    }
    crash::point_when_sent("relay.sent", &bus.client).await;
    let mut last = PublishAck::default();
    for publish in under_way {
        let ack = publish.await.map_err(publish_failure)?;
        last = PublishAck {
            duplicate: ack.duplicate || last.duplicate,
            ..ack
        };
    }
    Ok(last)
}

fn publish_failure(error: PublishError) -> Failure {
    let code = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .map(jetstream::Error::error_code);
    match error.kind() {
        PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
            Failure::Fence(error.to_string())
        }
        _ if code.is_some_and(is_fence) => Failure::Fence(error.to_string()),
        _ => Failure::Other(error.into()),
    }
}

/// Whether the stream does not end where it was expected to; the other code says it of a cluster
/// that has not agreed yet on what is under way before.
fn is_fence(code: ErrorCode) -> bool {
    code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE
        || code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
}

/// All rows or none, in one commit of the server (ADR-50 of the NATS architecture): the first
/// carries the fence, the last asks for the commit and is the only one that is answered.
async fn atomic_batch(
    bus: &Bus,
    rows: &[Row],
    id: impl Fn(&Row) -> EventId,
    spans: &[Span],
    expected: u64,
) -> Result<PublishAck, Failure> {
    let batch = uuid::Uuid::now_v7().simple().to_string();
    let last = rows.len() - 1;
    for (index, row) in rows.iter().enumerate() {
        let mut headers = headers(row, &id(row), &spans[index]);
        headers.insert(NATS_BATCH_ID, batch.as_str());
        headers.insert(NATS_BATCH_SEQUENCE, (index + 1).to_string());
        if index == 0 {
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, expected.to_string());
        }
        let payload = Bytes::copy_from_slice(&row.payload);
        if index < last {
            bus.client
                .publish_with_headers(row.subject.clone(), headers, payload)
                .await
                .map_err(|error| Failure::Other(error.into()))?;
            if index == last / 2 {
                crash::point_when_sent("relay.half", &bus.client).await;
            }
        } else {
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
            let request = Request::new().headers(headers).payload(payload);
            let (answer, ()) = tokio::join!(
                bus.client.send_request(row.subject.clone(), request),
                crash::point_when_sent("relay.sent", &bus.client)
            );
            let answer = answer.map_err(|error| Failure::Other(error.into()))?;
            return commit_answer(&answer.payload);
        }
    }
    unreachable!("the last row returns")
}

fn commit_answer(payload: &[u8]) -> Result<PublishAck, Failure> {
    match serde_json::from_slice(payload) {
        Ok(Response::Ok(ack)) => Ok(ack),
        Ok(Response::Err { error }) if is_fence(error.error_code()) => {
            Err(Failure::Fence(error.to_string()))
        }
        Ok(Response::Err { error }) => Err(Failure::Other(error.into())),
        Err(error) => Err(Failure::Other(anyhow!(error).context("read the answer"))),
    }
}

/// With the trace of the publication, or of the command where the relay does not trace.
fn headers(row: &Row, id: &EventId, span: &Span) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, id.to_string());
    if let Some(traceparent) = &row.traceparent {
        let own = span.traceparent();
        headers.insert(
            trace::TRACEPARENT,
            own.as_ref().unwrap_or(traceparent).as_str(),
        );
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_checked_where_there_are_several_copies() {
        for (rows, copies, way) in [
            (1, 1, Way::Pipelined),
            (13, 1, Way::Pipelined),
            (14, 1, Way::Batch),
            (1, 3, Way::Pipelined),
            (2, 3, Way::Batch),
        ] {
            assert_eq!(Way::of(rows, copies), way, "{rows} rows, {copies} copies");
        }
    }

    fn refused(code: u64) -> Result<PublishAck, Failure> {
        let error = format!(r#"{{"code":400,"err_code":{code},"description":"x"}}"#);
        commit_answer(format!(r#"{{"type":"x","error":{error}}}"#).as_bytes())
    }

    #[test]
    fn a_cluster_says_in_two_ways_that_the_fence_held() {
        for code in [10_071, 10_164] {
            assert!(matches!(refused(code), Err(Failure::Fence(_))), "{code}");
        }
    }

    /// Another publication of the same event may be under way, and get through or not.
    #[test]
    fn what_is_under_way_is_unknown_and_not_refused() {
        assert!(matches!(refused(10_158), Err(Failure::Other(_))));
    }
}
