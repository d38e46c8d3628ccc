//! The chassis alone: SQLite files, a real nats-server, and a test event and a test projection.
//!
//! Every test states a fact. No test sleeps: `support::eventually` waits for a state, with a
//! timeout.

#![expect(clippy::unwrap_used, reason = "an unexpected result fails the test")]

mod backup;
mod bounds;
mod consumer;
mod counts;
mod database;
mod dead_letter;
mod effects;
mod epochs;
mod errors;
mod golden;
mod group_commit;
mod hostile;
mod http;
mod idempotency;
mod limits;
mod micro;
mod mistakes;
mod monitor;
mod operator;
mod outbox;
mod own_backup;
mod pause;
mod personal;
mod poison;
mod projection;
mod rebuild;
mod relay;
mod relay_faults;
mod relay_limits;
mod repair;
mod replay;
mod request_reply;
mod schema;
mod shared;
mod stopping;
mod supervisor;
mod support;
mod versions;
