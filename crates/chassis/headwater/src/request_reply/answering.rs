//! The answering side of request-reply.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::service::{self, Request};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{FutureExt as _, StreamExt as _};
use headwater_event::schema::{BUCKET, Described};
use headwater_event::{Position, Undecodable};
use headwater_nats::bus::{self, Bus};
use headwater_nats::request::{POSITION, TOO_LARGE};
use headwater_store::{Database, Snapshot};
use headwater_telemetry::trace::{self, SpanKind};
use prost::Message;
use sea_orm::DbErr;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How many questions are answered concurrently; further ones wait at the subscription.
const AT_ONCE: usize = 64;

/// The largest answer, in bytes. The server's limit applies if it is smaller.
const ANSWER_MAX: usize = 512 * 1024;

/// Why a question is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The question cannot be decoded or is not allowed. The text says what to send instead.
    #[error("{0}")]
    Malformed(String),
    /// The database could not be read. The cause is logged, not sent.
    #[error("internal error; the cause is in the service's log")]
    Database(#[from] DbErr),
    /// The answer is too large. The caller may ask for less.
    #[error(
        "{what} takes {bytes} bytes, and an answer has room for {room}: ask for less, or raise `max_payload` of the NATS server or account"
    )]
    TooLarge {
        /// What is too large.
        what: String,
        /// How many bytes it takes.
        bytes: usize,
        /// How many bytes fit.
        room: usize,
    },
}

impl From<Undecodable> for Refusal {
    fn from(error: Undecodable) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl Refusal {
    /// The error code of the Services API: an HTTP status.
    fn code(&self) -> usize {
        match self {
            Self::Malformed(_) => 400,
            Self::Database(_) => 500,
            Self::TooLarge { .. } => TOO_LARGE,
        }
    }
}

type Answered = Result<(Vec<u8>, Position), Refusal>;

/// A type-erased question that the service answers.
#[derive(Clone)]
pub(crate) struct Question {
    subject: &'static str,
    /// Takes the encoded question and the size limit of the answer in bytes.
    answer: Arc<dyn Fn(Bytes, usize) -> BoxFuture<'static, Answered> + Send + Sync>,
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Question").field(&self.subject).finish()
    }
}

/// The incoming requests of all questions.
pub(crate) type Asked = SelectAll<BoxStream<'static, (Question, Request)>>;

/// The questions that a service answers.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    all: Vec<Question>,
    /// What `nats micro info` shows of each question, by subject.
    described: HashMap<String, Metadata>,
}

type Metadata = HashMap<String, String>;

impl Questions {
    /// Adds the questions on `subject`, each answered from one snapshot of `db`. The last argument
    /// of `answer` is the present size limit of the encoded answer, in bytes.
    pub fn add<Q, A>(
        &mut self,
        db: &Database,
        subject: &'static str,
        answer: impl Fn(&Snapshot, &Q, usize) -> Result<A, Refusal> + Clone + Send + Sync + 'static,
    ) where
        Q: Message + Default + 'static,
        A: Message + 'static,
    {
        let db = db.clone();
        let answer = move |payload: Bytes, room: usize| {
            let (db, answer) = (db.clone(), answer.clone());
            async move {
                let asked = Q::decode(payload)
                    .map_err(|error| Refusal::Malformed(format!("send a question: {error}")))?;
                let read = move |snapshot: &_| answer(snapshot, &asked, room);
                let (answer, as_of) = db.read_as_of(read).await?;
                let bytes = answer.encoded_len();
                if bytes > room {
                    let what = "the answer".to_owned();
                    return Err(Refusal::TooLarge { what, bytes, room });
                }
                Ok((answer.encode_to_vec(), as_of))
            }
            .boxed()
        };
        let answer = Arc::new(answer);
        self.all.push(Question { subject, answer });
    }

    /// Notes the message types of the questions in `schema` and of their answers.
    pub(crate) fn describe(&mut self, schema: &Described) {
        self.described = schema
            .questions
            .iter()
            .map(|question| {
                let entry = format!("{BUCKET} {}", schema.source);
                let metadata = bus::metadata([
                    ("request", &question.asked),
                    ("response", &question.answered),
                    ("format", "protobuf"),
                    ("schema", &entry),
                ]);
                (question.subject.clone(), metadata)
            })
            .collect();
    }

    /// Offers the questions as endpoints of `service`, for [`serve`] to answer.
    pub(crate) async fn offer(
        self,
        service: &service::Service,
    ) -> Result<Asked, headwater_nats::Error> {
        let mut asked = Asked::new();
        for question in self.all {
            let metadata = self.described.get(question.subject).cloned();
            let builder = service.endpoint_builder();
            let builder = builder.metadata(metadata.unwrap_or_default());
            let endpoint = bus::offer(builder, question.subject).await?;
            asked.push(
                endpoint
                    .map(move |request| (question.clone(), request))
                    .boxed(),
            );
        }
        Ok(asked)
    }
}

/// Answers the requests in `asked` until `stop`, [`AT_ONCE`] concurrently.
pub(crate) async fn serve(mut asked: Asked, bus: &Bus, stop: CancellationToken) {
    let mut answering = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some((question, request)) = asked.next(), if answering.len() < AT_ONCE => {
                answering.spawn(answer(question, request, bus.clone()));
            }
            Some(ended) = answering.join_next() => note(ended),
        }
    }
    while let Some(ended) = answering.join_next().await {
        note(ended);
    }
}

async fn answer(Question { subject, answer }: Question, request: Request, bus: Bus) {
    let mut headers = HeaderMap::new();
    let asked = request.message.headers.as_ref();
    let traceparent = asked.and_then(|headers| headers.get(trace::TRACEPARENT));
    let traceparent = traceparent.map(async_nats::HeaderValue::as_str);
    let span = trace::caused(traceparent, SpanKind::Server, || {
        format!("answer {subject}")
    });
    let room = bus.reply_max().min(ANSWER_MAX);
    let answering = span.around(answer(request.message.payload.clone(), room));
    let answer = match answering.await {
        Ok((encoded, as_of)) => {
            headers.insert(POSITION, as_of.to_string());
            Ok(encoded)
        }
        Err(refusal) => {
            span.fail(&refusal);
            if let Refusal::Database(error) = &refusal {
                tracing::error!(%error, subject, "database read failed while answering");
            }
            Err(service::error::Error {
                code: refusal.code(),
                status: refusal.to_string(),
            })
        }
    };
    bus.respond(&request, answer, headers).await;
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "answering a question panicked");
    }
}
