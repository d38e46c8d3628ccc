//! Addresses to listen on, and limits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args as _, Command, FromArgMatches as _};
use headwater_telemetry::duration;

use crate::error::Error;
use crate::host;

/// Addresses to listen on, and limits for clients.
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
    /// Address for health and metrics [default: 127.0.0.1, port of --listen plus 1000]
    #[arg(
        long,
        env = "HEADWATER_ADMIN_LISTEN",
        value_name = "ADDRESS:PORT",
        hide_default_value = true
    )]
    pub admin_listen: Option<SocketAddr>,
    /// Host names, separated by commas, that the service answers for. Localhost, loopback
    /// addresses and the address that a client connects to need none
    #[arg(
        long,
        env = "HEADWATER_PUBLIC_HOST",
        value_name = "NAME",
        value_delimiter = ',',
        value_parser = host::parse_name
    )]
    pub public_host: Vec<String>,
    /// Maximum number of connections. A further one replaces an idle one or one whose client does
    /// not take its answer, or waits
    #[arg(
        long = "http-connections",
        env = "HEADWATER_HTTP_CONNECTIONS",
        default_value_t = 1024
    )]
    pub connections: usize,
    /// Maximum number of connections per address (IPv6: per /64); 0 (behind a reverse proxy) for no
    /// limit, and none of an address's untaken answers
    #[arg(
        long = "http-connections-per-address",
        env = "HEADWATER_HTTP_CONNECTIONS_PER_ADDRESS",
        default_value_t = 512
    )]
    pub connections_per_address: usize,
    /// Maximum number of streams of events, for pages that follow
    #[arg(
        long = "http-streams",
        env = "HEADWATER_HTTP_STREAMS",
        default_value_t = 768
    )]
    pub streams: usize,
    /// Maximum number of streams of events per address (IPv6: per /64); 0 for no limit per address
    #[arg(
        long = "http-streams-per-address",
        env = "HEADWATER_HTTP_STREAMS_PER_ADDRESS",
        default_value_t = 256
    )]
    pub streams_per_address: usize,
    /// Memory in MiB for answers that their clients have not yet taken
    #[arg(
        long = "http-buffer-mib",
        env = "HEADWATER_HTTP_BUFFER_MIB",
        default_value_t = 64
    )]
    pub buffer_mib: usize,
    /// Time that a client may take to send the head of a request
    #[arg(
        long = "http-header-timeout",
        env = "HEADWATER_HTTP_HEADER_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "10s"
    )]
    pub header_timeout: Duration,
    /// Time that a client may keep an answer waiting; it must also read at least 16 KiB per second
    #[arg(
        long = "http-write-timeout",
        env = "HEADWATER_HTTP_WRITE_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "10s"
    )]
    pub write_timeout: Duration,
    /// Time that a request may take, including its body
    #[arg(
        long = "http-timeout",
        env = "HEADWATER_HTTP_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "30s"
    )]
    pub timeout: Duration,
    /// Time that a request with `?after` waits until the answer includes those positions
    #[arg(
        long,
        env = "HEADWATER_CONSISTENCY_TIMEOUT",
        value_name = "DURATION",
        value_parser = duration,
        default_value = "5s"
    )]
    pub consistency_timeout: Duration,
}

/// The defaults, without flags and variables.
impl Default for Config {
    fn default() -> Self {
        let command = Self::augment_args(Command::new("defaults"));
        let command = command.mut_args(|arg| arg.env(Resettable::Reset));
        Self::from_arg_matches(&command.get_matches_from(["defaults"]))
            .expect("every flag has a default")
    }
}

/// The distance of the port for health and metrics from the public port.
const ADMIN_PORT_OFFSET: u16 = 1000;

/// Maximum number of connections for health and metrics.
const ADMIN_CONNECTIONS: usize = 64;

impl Config {
    /// The address for health and metrics.
    ///
    /// # Errors
    /// [`Error::NoAdminPort`]: it is not set, and the public port plus the offset is not a port.
    pub fn admin_address(&self) -> Result<SocketAddr, Error> {
        admin_address(self.listen, self.admin_listen)
    }

    /// The configuration of the listener for health and metrics.
    #[must_use]
    pub fn of_admin(&self) -> Self {
        Self {
            connections: ADMIN_CONNECTIONS,
            connections_per_address: 0,
            ..self.clone()
        }
    }
}

/// The address for health and metrics of a service that listens at `public`: `admin`, if set.
///
/// # Errors
/// [`Error::NoAdminPort`]: the public port plus the offset is not a port.
pub fn admin_address(public: SocketAddr, admin: Option<SocketAddr>) -> Result<SocketAddr, Error> {
    if let Some(admin) = admin {
        return Ok(admin);
    }
    let port = match public.port() {
        0 => Some(0),
        port => port.checked_add(ADMIN_PORT_OFFSET),
    };
    let port = port.ok_or(Error::NoAdminPort {
        public: public.port(),
        offset: ADMIN_PORT_OFFSET,
    })?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}
