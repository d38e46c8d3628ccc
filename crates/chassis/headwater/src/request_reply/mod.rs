//! Request-reply over the bus: one service asks, the owner of the data answers.
//!
//! # What
//!
//! The asking service publishes a *question event* on the owner's subject,
//! `inquiry.<source>.v1.asked`, and waits for the *answer event*. Both are protobuf. The question's
//! reply subject names the destination of the answer and identifies the question:
//!
//! ```text
//! inquiry.users.v1.asked         reply: inquiry.answers.<instance>.17
//! inquiry.answers.<instance>.17  Headwater-Position: users:12
//! ```
//!
//! `<instance>` is one running process. The number after it is the correlation id of the question.
//! `nats sub 'inquiry.>'` shows the whole conversation.
//!
//! # Asking
//!
//! [`RequestClient`]: one subscription for all answers, and a table of pending questions. A
//! question leaves the table when it is answered, when its deadline passes, or when its caller
//! drops it. An answer without a pending question is counted
//! (`headwater_request_reply_stray_answers_total`) and dropped.
//!
//! # Answering
//!
//! [`Service::answers`](crate::service::Service::answers): the question is an endpoint of the
//! service on the NATS Services API, so `nats micro info` shows it. If there are several
//! instances, one of them answers. The answer is read from one snapshot; `Headwater-Position` is
//! the position of that snapshot. A malformed question is answered too, with the headers
//! `Nats-Service-Error` and `Nats-Service-Error-Code` of that API.
//!
//! # Why this way
//!
//! * **Not on the streams' subjects.** A stream would keep every question for ever.
//! * **The answer goes to the question's reply subject**, not to one subject for all answers of
//!   its kind: if a question has no subscriber, the server reports that at once on the reply
//!   subject.
//! * **No delivery is promised.** If a question or an answer is lost, the deadline passes. A
//!   service that needs more keeps a copy: `projection`.

pub mod answering;

pub(crate) use crate::request_reply::answering::serve;
pub use crate::request_reply::answering::{Questions, Refusal};
pub use headwater_nats::request::{Answer, Answers, NoAnswer, RequestClient};
