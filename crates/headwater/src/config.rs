//! What every service is told at its start: flags, each also an environment variable.

use std::time::Duration;

use crate::{bus, database, http, telemetry};

/// The configuration of a service, made to be flattened into its own.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// HTTP.
    #[command(flatten)]
    pub http: http::Config,
    /// The service's database.
    #[command(flatten)]
    pub database: database::Config,
    /// The broker.
    #[command(flatten)]
    pub nats: bus::Config,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Config,
    /// Seconds that requests and events under way have to end when the service stops
    #[arg(long, env = "HEADWATER_DRAIN_S", default_value_t = 10)]
    pub drain_s: u64,
}

impl Config {
    /// How long a stop may take.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_s)
    }
}
