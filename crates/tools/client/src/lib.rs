//! The operator's access to NATS: connection and login, requests to services, streams, and event
//! schemas.

pub use args::Args;
pub use cache::Cache;
pub use common::Common;
pub use failure::{Error, Misconfigured, Refusal, Unreachable, complain, exit_of, unreachable};
pub use nats::Nats;
pub use settings::Settings;
pub use tail::{Tail, first_position};

mod args;
pub mod arrived;
mod cache;
mod common;
mod context;
pub mod direct;
mod failure;
pub mod feed;
mod mask;
mod nats;
pub mod pattern;
pub mod schemas;
mod settings;
mod tail;
