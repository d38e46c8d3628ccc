//! NATS as the operator reaches it: who we are there, asking services, reading streams, and what
//! events look like.

pub use args::Args;
pub use cache::Cache;
pub use common::Common;
pub use failure::{Misconfigured, Refusal, Unreachable, complain, exit_of};
pub use nats::Nats;
pub use settings::Settings;
pub use tail::{Tail, first_position};

mod args;
mod cache;
mod common;
mod context;
pub mod direct;
mod failure;
mod nats;
pub mod schemas;
mod settings;
mod tail;
