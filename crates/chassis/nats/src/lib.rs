//! NATS: the [connection and login](bus), [streams](stream), [consumers](consumer),
//! [admin endpoints](control) and [request-reply](request) between services.

#![warn(missing_docs)]

pub mod access;
pub mod brokers;
pub mod bus;
mod config;
mod connection_events;
pub mod consumer;
pub mod control;
mod error;
pub mod login;
pub mod monitor;
pub mod pull;
pub mod replicas;
pub mod request;
mod schema_bucket;
mod schema_keeper;
pub mod start;
pub mod stream;
pub mod window;

pub use bus::Bus;
pub use error::Error;
pub use schema_bucket::bucket;
pub use schema_keeper::Keeper;
