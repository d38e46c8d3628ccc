//! The client of request-reply.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{HeaderMap, Message as Received, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use headwater_event::Positions;
use headwater_telemetry::trace::{self, SpanKind};
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::{Bus, NOT_CONNECTED};
use crate::error::Error;

/// The header with the positions that an answer includes, as over HTTP.
pub const POSITION: &str = "Headwater-Position";

/// The code of a refusal because the answer would be too large, as over HTTP.
pub const TOO_LARGE: usize = 413;

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<A> {
    /// The body of the answer.
    pub body: A,
    /// The positions that it includes.
    pub as_of: Positions,
}

/// Why a question was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// Too many questions wait; this one was not sent.
    #[error("too many questions wait for answers")]
    Full,
    /// The broker cannot be reached.
    #[error("{NOT_CONNECTED}")]
    NotConnected,
    /// No service subscribes to this question: the owner is down.
    #[error("no service is there to answer")]
    NoResponders,
    /// The deadline has passed.
    #[error("no answer in time")]
    Late,
    /// The answer would be too large; asking for less may help. Has the owner's message.
    #[error("refused: {0}")]
    TooLarge(String),
    /// The owner refused the question. Has the owner's message.
    #[error("refused: {0}")]
    Refused(String),
    /// The answer cannot be decoded.
    #[error("invalid answer: {0}")]
    Malformed(String),
}

/// Sends questions to other services over the bus. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RequestClient {
    bus: Arc<Bus>,
    waiting: Waiting,
    /// The subject of answers, up to the correlation id.
    answers_to: Arc<str>,
    questions_max: usize,
}

/// Delivers answers to the questions of one [`RequestClient`].
#[derive(Debug)]
pub struct Answers {
    subscriber: Subscriber,
    waiting: Waiting,
}

impl RequestClient {
    /// Subscribes to the answers to this process's questions. At most `questions_max` may wait at
    /// the same time. No answer arrives until the [`Answers`] run.
    ///
    /// # Errors
    /// The connection is closed for good.
    pub async fn subscribe(
        bus: &Bus,
        instance: Uuid,
        questions_max: usize,
    ) -> Result<(Self, Answers), Error> {
        let answers_to = format!("inquiry.answers.{instance}.");
        let subscriber = bus
            .client
            .subscribe(format!("{answers_to}*"))
            .await
            .context("subscribe to answers")
            .map_err(Error::of)?;
        // Counters that alerts use exist from the start.
        for kind in ["late", "unknown"] {
            metrics::counter!("headwater_request_reply_stray_answers_total", "kind" => kind)
                .increment(0);
        }
        let waiting = Waiting::default();
        let answers = Answers {
            subscriber,
            waiting: waiting.clone(),
        };
        let client = Self {
            bus: Arc::new(bus.clone()),
            waiting,
            answers_to: answers_to.into(),
            questions_max,
        };
        Ok((client, answers))
    }

    /// Sends `question` on `subject`, and waits for the answer until `deadline`.
    ///
    /// # Errors
    /// See [`NoAnswer`].
    pub async fn ask<A: Message + Default>(
        &self,
        subject: &'static str,
        question: &impl Message,
        deadline: Instant,
    ) -> Result<Answer<A>, NoAnswer> {
        if !self.bus.is_up() {
            return Err(NoAnswer::NotConnected);
        }
        let mut pending = self.waiting.reserve(self.questions_max)?;
        let span = trace::part(SpanKind::Client, || format!("ask {subject}"));
        let mut headers = HeaderMap::new();
        if let Some(traceparent) = span.traceparent() {
            headers.insert(trace::TRACEPARENT, traceparent);
        }
        let reply = format!("{}{}", self.answers_to, pending.number);
        let asking = async {
            let payload = question.encode_to_vec().into();
            let client = &self.bus.client;
            let asked = client.publish_with_reply_and_headers(subject, reply, headers, payload);
            asked.await.map_err(|_| NoAnswer::NotConnected)?;
            (&mut pending.answer)
                .await
                .map_err(|_| NoAnswer::NotConnected)
        };
        let answer = timeout_at(deadline, asking).await;
        let answer = answer.map_err(|_| NoAnswer::Late).flatten();
        let read = answer.and_then(|answer| read(&answer));
        if let Err(why) = &read {
            span.fail(why);
        }
        read
    }
}

fn read<A: Message + Default>(answer: &Received) -> Result<Answer<A>, NoAnswer> {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(NoAnswer::NoResponders);
    }
    if let Some(refusal) = header(answer.headers.as_ref(), NATS_SERVICE_ERROR) {
        let code = header(answer.headers.as_ref(), NATS_SERVICE_ERROR_CODE);
        let is_too_large = code.and_then(|code| code.parse().ok()) == Some(TOO_LARGE);
        let refused = if is_too_large {
            NoAnswer::TooLarge
        } else {
            NoAnswer::Refused
        };
        return Err(refused(refusal.to_owned()));
    }
    let body = A::decode(answer.payload.clone())
        .map_err(|error| NoAnswer::Malformed(error.to_string()))?;
    let as_of = header(answer.headers.as_ref(), POSITION)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| NoAnswer::Malformed(format!("it has no valid {POSITION}")))?;
    Ok(Answer { body, as_of })
}

fn header<'a>(headers: Option<&'a HeaderMap>, name: &str) -> Option<&'a str> {
    Some(headers?.get(name)?.as_str())
}

impl Answers {
    /// Delivers each answer to its question, until `stop`.
    ///
    /// # Errors
    /// The connection is closed for good.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Error> {
        while let Some(answer) = stop.run_until_cancelled(self.subscriber.next()).await {
            match answer {
                Some(answer) => self.waiting.hand_over(answer),
                None => {
                    return Err(Error::Other(
                        "the subscription to answers was closed".into(),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The questions that wait for answers. Cheap to clone.
#[derive(Debug, Clone, Default)]
struct Waiting(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    /// The newest correlation id.
    last: u64,
    questions: HashMap<u64, oneshot::Sender<Received>>,
}

/// A pending question; no longer pending when dropped.
#[derive(Debug)]
struct PendingReplyGuard {
    number: u64,
    answer: oneshot::Receiver<Received>,
    waiting: Waiting,
}

impl Waiting {
    fn reserve(&self, max: usize) -> Result<PendingReplyGuard, NoAnswer> {
        let mut table = self.table();
        if table.questions.len() >= max {
            return Err(NoAnswer::Full);
        }
        table.last += 1;
        let number = table.last;
        let (sender, answer) = oneshot::channel();
        table.questions.insert(number, sender);
        Ok(PendingReplyGuard {
            number,
            answer,
            waiting: self.clone(),
        })
    }

    fn hand_over(&self, answer: Received) {
        let number = answer.subject.rsplit('.').next().map(str::parse);
        let mut table = self.table();
        let kind = match number {
            Some(Ok(number)) => match table.questions.remove(&number) {
                Some(question) => {
                    // The caller may have just gone away.
                    let _ = question.send(answer);
                    return;
                }
                None if (1..=table.last).contains(&number) => "late",
                None => "unknown",
            },
            _ => "unknown",
        };
        metrics::counter!("headwater_request_reply_stray_answers_total", "kind" => kind)
            .increment(1);
        tracing::debug!(subject = %answer.subject, kind, "dropped a stray answer");
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for PendingReplyGuard {
    fn drop(&mut self) {
        self.waiting.table().questions.remove(&self.number);
    }
}
