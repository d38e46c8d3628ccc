//! Publishes outbox rows with the expected-last-sequence check: a few as pipelined publishes, many
//! as one atomic batch.

use std::fmt::Display;
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
use async_nats::{HeaderMap, Request, RequestErrorKind, client};
use bytes::Bytes;
use futures_util::FutureExt;
use headwater_event::{EventId, Row, kind_of};
use headwater_nats::bus::Bus;
use headwater_telemetry::crash;
use headwater_telemetry::trace::{self, Span, SpanKind};

use crate::limit::{self, Limited, PublishMode};

/// The result of a publication.
pub(crate) enum Outcome {
    /// All rows are stored; the stream now ends with this sequence.
    Stored { last_sequence: u64 },
    /// The stream does not end where the relay expected.
    Refused(String),
    /// A limit or a setting of the broker refuses events. Nothing of a batch is stored; of a
    /// pipeline, the rows before the refused one are.
    Limited(Limited),
    /// No answer, or an unclear one. Some rows may be stored, now or later.
    Unknown(anyhow::Error),
}

/// Publishes `rows`, in order, if the stream still ends with sequence `expected`.
pub(crate) async fn rows(
    bus: &Bus,
    mode: PublishMode,
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
    let spans = publications(rows);
    let result = match mode {
        PublishMode::Pipelined => pipelined(bus, rows, id, &spans, expected).await,
        PublishMode::Batch => atomic_batch(bus, rows, id, &spans, expected).await,
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
        Err(Failure::Limit(limited)) => Outcome::Limited(limited),
        Err(Failure::Other(error)) => Outcome::Unknown(error),
    }
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("refused: {0}")]
    Fence(String),
    #[error("refused: {}", .0.text)]
    Limit(Limited),
    #[error("unknown: {0:#}")]
    Other(anyhow::Error),
}

/// Publishes each row separately, all in flight at once. Each row expects the sequence and the id
/// of the row before.
///
/// The sequence alone is not enough: if another event takes the place of the first row, the first
/// row is refused, the second would pass, and the first would be missing for ever.
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
            .map_err(|error| publish_failure(&error, index))?;
        under_way.push(publish);
        if index == rows.len() / 2 {
            point_when_sent("relay.half", &bus.client).await;
        }
    }
    point_when_sent("relay.sent", &bus.client).await;
    let mut last = PublishAck::default();
    for (row, publish) in under_way.into_iter().enumerate() {
        let ack = publish
            .await
            .map_err(|error| publish_failure(&error, row))?;
        last = PublishAck {
            duplicate: ack.duplicate || last.duplicate,
            ..ack
        };
    }
    Ok(last)
}

fn publish_failure(error: &PublishError, row: usize) -> Failure {
    let refusal = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), refusal) {
        (PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId, _) => {
            Failure::Fence(error.to_string())
        }
        (PublishErrorKind::MaxPayloadExceeded, _) => too_large(error, row),
        (_, Some(refusal)) => refused(refusal, row),
        _ => Failure::Other(anyhow!("{error}")),
    }
}

/// The client does not send what would make the server close the connection.
fn too_large(error: &impl Display, row: usize) -> Failure {
    Failure::Limit(Limited {
        code: ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
        text: error.to_string(),
        row,
    })
}

/// Classifies the server's refusal of the event in `row`.
fn refused(error: &jetstream::Error, row: usize) -> Failure {
    let code = error.error_code();
    if is_fence(code) {
        Failure::Fence(error.to_string())
    } else if limit::is_limit(code) {
        let text = error.to_string();
        Failure::Limit(Limited { code, text, row })
    } else {
        Failure::Other(anyhow!("{error}"))
    }
}

/// Whether the stream does not end where expected. A cluster uses the other code while it has not
/// agreed on an earlier publication.
fn is_fence(code: ErrorCode) -> bool {
    code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE
        || code == ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT
}

/// Publishes all rows or none, in one commit of the server (ADR-50 of the NATS architecture). The
/// first row carries the expected sequence, the last asks for the commit. The server answers only
/// these two. If it refuses the first, it answers the last only that the batch is incomplete.
async fn atomic_batch(
    bus: &Bus,
    rows: &[Row],
    id: impl Fn(&Row) -> EventId,
    spans: &[Span],
    expected: u64,
) -> Result<PublishAck, Failure> {
    let batch = uuid::Uuid::now_v7().simple().to_string();
    let last = rows.len() - 1;
    let mut first = None;
    for (index, row) in rows.iter().enumerate() {
        let mut headers = headers(row, &id(row), &spans[index]);
        headers.insert(NATS_BATCH_ID, batch.as_str());
        headers.insert(NATS_BATCH_SEQUENCE, (index + 1).to_string());
        if index == 0 {
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, expected.to_string());
        }
        let payload = Bytes::copy_from_slice(&row.payload);
        if index < last {
            if index == 0 {
                let message = PublishMessage::build().payload(payload).headers(headers);
                let sent = bus.jetstream.send_publish(row.subject.clone(), message);
                first = Some(sent.await.map_err(|error| publish_failure(&error, 0))?);
            } else {
                bus.client
                    .publish_with_headers(row.subject.clone(), headers, payload)
                    .await
                    .map_err(|error| match error.kind() {
                        client::PublishErrorKind::MaxPayloadExceeded => too_large(&error, 0),
                        _ => Failure::Other(error.into()),
                    })?;
            }
            if index == last / 2 {
                point_when_sent("relay.half", &bus.client).await;
            }
        } else {
            headers.insert(NATS_BATCH_COMMIT, NATS_BATCH_COMMIT_FINAL);
            let request = Request::new().headers(headers).payload(payload);
            let (answer, ()) = tokio::join!(
                bus.client.send_request(row.subject.clone(), request),
                point_when_sent("relay.sent", &bus.client)
            );
            let answer = answer.map_err(|error| match error.kind() {
                RequestErrorKind::MaxPayloadExceeded => too_large(&error, 0),
                _ => Failure::Other(error.into()),
            })?;
            let committed = commit_answer(&answer.payload);
            let first = first.and_then(|first| first.into_future().now_or_never());
            return committed.map_err(|failure| why_not_whole(failure, first));
        }
    }
    unreachable!("the last row returns")
}

fn commit_answer(payload: &[u8]) -> Result<PublishAck, Failure> {
    match serde_json::from_slice(payload) {
        Ok(Response::Ok(ack)) => Ok(ack),
        Ok(Response::Err { error }) => Err(refused(&error, 0)),
        Err(error) => Err(Failure::Other(anyhow!(error).context("read the answer"))),
    }
}

/// Why a batch was refused: if it was incomplete, the server's answer to its first event.
fn why_not_whole(failure: Failure, first: Option<Result<PublishAck, PublishError>>) -> Failure {
    match (&failure, first) {
        (Failure::Limit(limited), Some(Err(error)))
            if limited.code == ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH =>
        {
            match publish_failure(&error, 0) {
                first @ Failure::Limit(_) => first,
                // The first event was accepted: its empty answer is not an error of the event.
                _ => failure,
            }
        }
        _ => failure,
    }
}

/// Starts a span for each of `rows` whose command was traced.
fn publications(rows: &[Row]) -> Vec<Span> {
    let begin = |row: &Row| match &row.traceparent {
        Some(traceparent) => {
            let span = trace::caused(Some(traceparent), SpanKind::Producer, || {
                format!("publish {}", kind_of(&row.subject))
            });
            span.set("messaging.system", "nats");
            span.set("messaging.destination.name", row.subject.clone());
            span.set_number("headwater.position", row.position);
            span
        }
        None => Span::default(),
    };
    rows.iter().map(begin).collect()
}

/// Headers with the trace of the publication, or of the command if the relay does not trace.
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

/// [`crash::point`], after the connection has sent everything. Otherwise most of what dies with the
/// process was never sent.
async fn point_when_sent(name: &'static str, client: &async_nats::Client) {
    if crash::is_armed(name) {
        // It fails only with the connection, and then nothing is sent.
        let _ = client.flush().await;
    }
    crash::point(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u64) -> Result<PublishAck, Failure> {
        let error = format!(r#"{{"code":400,"err_code":{code},"description":"x"}}"#);
        commit_answer(format!(r#"{{"type":"x","error":{error}}}"#).as_bytes())
    }

    #[test]
    fn a_cluster_says_in_two_ways_that_the_fence_held() {
        for code in [10_071, 10_164] {
            assert!(matches!(answered(code), Err(Failure::Fence(_))), "{code}");
        }
    }

    #[test]
    fn a_limit_of_the_broker_is_told_from_an_error() {
        for code in [
            10_174, 10_176, 10_199, 10_210, 10_054, 10_077, 10_047, 10_002,
        ] {
            assert!(matches!(answered(code), Err(Failure::Limit(_))), "{code}");
        }
        // A duplicate within the dedupe window resolves by itself.
        assert!(matches!(answered(10_201), Err(Failure::Other(_))));
    }

    /// Another publication of the same event may be in flight, and may or may not succeed.
    #[test]
    fn what_is_under_way_is_unknown_and_not_refused() {
        assert!(matches!(answered(10_158), Err(Failure::Other(_))));
    }
}
