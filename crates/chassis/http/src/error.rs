//! Why a service cannot listen.

use std::io;
use std::net::SocketAddr;

/// Why a service cannot listen. What a client gets is a [`Problem`](crate::Problem).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is in use, or is not this machine's: choose another one.
    #[error("listen on {address} (choose another address with {flags})")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The settings that choose another one.
        flags: &'static str,
        /// The operating system's reason.
        #[source]
        error: io::Error,
    },
    /// No address for health and metrics is set, and the public port is too high to derive one:
    /// set it.
    #[error(
        "there is no port {offset} after {public}; name an address for health and metrics with \
         --admin-listen or HEADWATER_ADMIN_LISTEN"
    )]
    NoAdminPort {
        /// The public port.
        public: u16,
        /// The distance of the other port.
        offset: u16,
    },
    /// systemd passes sockets that a service cannot use: correct the `.socket` units.
    #[error(transparent)]
    Sockets(#[from] headwater_telemetry::Error),
    /// The listener has no address.
    #[error("read the listener's address")]
    NoAddress(#[source] io::Error),
}
