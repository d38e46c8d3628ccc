//! HTTP: what every service has in common.
//!
//! [`app`] puts around a service's own routes what all of them have: `/livez`,
//! `/readyz?verbose`, `/metrics`, `/openapi.json`, `/docs`, limits, and RFC 9457 problems for
//! every error, also 404, 405 and a query parameter that a route does not have. [`serve`] runs it under header timeout and connection cap.

mod answer;
mod app;
mod docs;
mod extract;
mod openapi;
mod page;
mod problem;
mod server;

use std::net::SocketAddr;
use std::time::Duration;

pub use answer::{Answer, POSITION, with_position};
pub use app::{About, app};
pub use extract::{After, IdempotencyKey, Json, Path, Peer, Query};
pub use page::{Limit, Page, PageQuery, cut};
pub use problem::{FieldError, Invalid, Problem};
pub(crate) use server::{Pulse, serve_watched};
pub use server::{bind, serve};

/// Where to listen, and what clients may ask for.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "HTTP")]
pub struct Config {
    /// Address to listen on; port 0 takes a free one
    #[arg(
        long,
        env = "HEADWATER_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,
    /// Connections at the same time; further ones wait to be accepted
    #[arg(
        long = "http-connections",
        env = "HEADWATER_HTTP_CONNECTIONS",
        default_value_t = 1024
    )]
    pub connections: usize,
    /// Seconds a client has to send the head of a request
    #[arg(
        long = "http-header-timeout-s",
        env = "HEADWATER_HTTP_HEADER_TIMEOUT_S",
        default_value_t = 10
    )]
    pub header_timeout_s: u64,
    /// Seconds a request may take, its body included
    #[arg(
        long = "http-timeout-s",
        env = "HEADWATER_HTTP_TIMEOUT_S",
        default_value_t = 30
    )]
    pub timeout_s: u64,
    /// Seconds a request with `after` waits for the copy to get there
    #[arg(
        long = "http-after-s",
        env = "HEADWATER_HTTP_AFTER_S",
        default_value_t = 5
    )]
    pub after_s: u64,
}

impl Config {
    /// How long a request with `after` waits for the copy to get there.
    pub fn after_deadline(&self) -> Duration {
        Duration::from_secs(self.after_s)
    }
}
