//! Questions and answers over the bus: one service asks, the owner of the data answers.
//!
//! # What
//!
//! Whoever needs something publishes a *question event* on the owner's subject,
//! `inquiry.<source>.v1.asked`, and waits for the *answer event*. Both are protobuf. The question's
//! reply subject says where the answer is to go and which one it is:
//!
//! ```text
//! inquiry.users.v1.asked         reply: inquiry.answers.<instance>.17
//! inquiry.answers.<instance>.17  Headwater-Position: users:12
//! ```
//!
//! `<instance>` is one running process, the number after it the correlation id: which of its
//! questions is answered. `nats sub 'inquiry.>'` shows the whole conversation.
//!
//! # Asking
//!
//! [`RequestClient`]: one subscription for all answers, and a table of the questions that wait. A
//! question takes its place in the table with it when it ends, however it ends: answered, too late,
//! or given up by its caller. An answer that nobody waits for is counted
//! (`headwater_request_reply_stray_answers_total`) and dropped.
//!
//! # Answering
//!
//! [`Service::answers`](crate::service::Service::answers): the question is an endpoint of the service on the
//! NATS Services API, so `nats micro info` shows it, and of several instances one answers. The
//! answer is read from one snapshot and says in `Headwater-Position` what it is as of. A question
//! that cannot be read is answered, too: with the headers `Nats-Service-Error` and
//! `Nats-Service-Error-Code` of that API.
//!
//! # Why this way
//!
//! * **Not on the streams' subjects.** A stream would keep every question for ever.
//! * **The answer goes to the question's reply subject**, and not to one for all answers of its
//!   kind: when nobody listens to a question the server says so at once, and says it there.
//! * **No delivery is promised.** A question or an answer that is lost is a deadline that passes.
//!   Whoever needs more keeps a copy: `projection`.

pub mod answering;

pub(crate) use crate::request_reply::answering::serve;
pub use crate::request_reply::answering::{Questions, Refusal};
pub use headwater_nats::request::{Answer, Answers, NoAnswer, RequestClient};
