//! Where to listen, and within which limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::Resettable;
use clap::{Args as _, Command, FromArgMatches as _};
use headwater_telemetry::duration;

use crate::host;

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
    /// Address for health and metrics [default: 127.0.0.1, at the port of --listen plus 1000]
    #[arg(
        long,
        env = "HEADWATER_ADMIN_LISTEN",
        value_name = "ADDRESS:PORT",
        hide_default_value = true
    )]
    pub admin_listen: Option<SocketAddr>,
    /// Host names, with commas, that requests may be for, besides localhost, loopback addresses,
    /// and the address that a client has connected to
    #[arg(
        long,
        env = "HEADWATER_PUBLIC_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = host::parse_name
    )]
    pub public_host: Vec<String>,
    /// Connections at the same time; for a further one an idle one is closed, or one whose client
    /// does not take its answer, or it waits
    #[arg(
        long = "http-connections",
        env = "HEADWATER_HTTP_CONNECTIONS",
        default_value_t = 1024
    )]
    pub connections: usize,
    /// Connections of one address (of IPv6: one /64) at the same time; 0: no limit but that of all
    #[arg(
        long = "http-connections-per-address",
        env = "HEADWATER_HTTP_CONNECTIONS_PER_ADDRESS",
        default_value_t = 512
    )]
    pub connections_per_address: usize,
    /// MiB that answers may hold in memory until their clients have taken them
    #[arg(
        long = "http-buffer-mib",
        env = "HEADWATER_HTTP_BUFFER_MIB",
        default_value_t = 64
    )]
    pub buffer_mib: usize,
    /// Time a client has to send the head of a request
    #[arg(
        long = "http-header-timeout",
        env = "HEADWATER_HTTP_HEADER_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "10s"
    )]
    pub header_timeout: Duration,
    /// Time a client may keep an answer waiting; it must also read at least 16 KiB per second
    #[arg(
        long = "http-write-timeout",
        env = "HEADWATER_HTTP_WRITE_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "10s"
    )]
    pub write_timeout: Duration,
    /// Time a request may take, including its body
    #[arg(
        long = "http-timeout",
        env = "HEADWATER_HTTP_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "30s"
    )]
    pub timeout: Duration,
    /// Time a request with `?after` waits until the answer includes those positions
    #[arg(
        long,
        env = "HEADWATER_CONSISTENCY_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "5s"
    )]
    pub consistency_timeout: Duration,
}

/// As where no flag and no variable says otherwise.
impl Default for Config {
    fn default() -> Self {
        let command = Self::augment_args(Command::new("defaults"));
        let command = command.mut_args(|arg| arg.env(Resettable::Reset));
        Self::from_arg_matches(&command.get_matches_from(["defaults"]))
            .expect("every flag has a default")
    }
}

/// How far the port for health and metrics is from the public one.
const ADMIN_PORT_OFFSET: u16 = 1000;

/// Connections for health and metrics at the same time.
const ADMIN_CONNECTIONS: usize = 64;

impl Config {
    /// Where health and metrics are.
    ///
    /// # Errors
    /// It is not said, and there is no port so far from the public one.
    pub fn admin_address(&self) -> anyhow::Result<SocketAddr> {
        admin_address(self.listen, self.admin_listen)
    }

    /// The same for the listener of health and metrics.
    #[must_use]
    pub fn of_admin(&self) -> Self {
        Self {
            connections: ADMIN_CONNECTIONS,
            connections_per_address: 0,
            ..self.clone()
        }
    }
}

/// Where health and metrics are of a service that was told to listen at `public`, and at `admin`
/// for these, if it was.
///
/// # Errors
/// There is no port so far from the public one.
pub fn admin_address(public: SocketAddr, admin: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    if let Some(admin) = admin {
        return Ok(admin);
    }
    let port = match public.port() {
        0 => Some(0),
        port => port.checked_add(ADMIN_PORT_OFFSET),
    };
    let port = port.with_context(|| {
        format!(
            "there is no port {ADMIN_PORT_OFFSET} after {}; name an address for health and \
             metrics with --admin-listen or HEADWATER_ADMIN_LISTEN",
            public.port()
        )
    })?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}
