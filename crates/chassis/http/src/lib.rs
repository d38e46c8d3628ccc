//! HTTP: what all services share.
//!
//! [`app`] adds to a service's own routes `/livez`, `/readyz?verbose`, `/openapi.json`, `/docs`,
//! limits, headers for browsers, and RFC 9457 problems for every error: also for 404, 405, an
//! unknown query parameter, and a host that the service does not answer for. [`serve`] runs it
//! within limits of time, memory and connections. [`admin`] has health and metrics, for a separate
//! listener.
//! [`EventStream`] is for pages that follow.

#![warn(missing_docs)]

mod address;
mod answer;
mod app;
mod arriving;
mod clients;
mod config;
mod docs;
mod error;
mod event_stream;
mod extract;
mod host;
pub mod network;
mod openapi;
mod page;
mod policy;
mod problem;
mod script;
mod server;
mod stream;
pub mod text;
mod turns;

pub use answer::{Answer, POSITION, with_position};
pub use app::{About, admin, app};
pub use config::{Config, admin_address};
pub use error::Error;
pub use event_stream::EventStream;
pub use extract::{After, IdempotencyKey, Json, Path, Peer, Query, SameOrigin};
pub use page::{Limit, Page, PageQuery, cut};
pub use policy::{STYLE, content_security_policy};
pub use problem::{FieldError, Invalid, Problem};
pub use script::script;
pub use server::{Listeners, LivenessProbe, bind, raise_file_limit, serve, serve_watched};
