//! Why a request could not be made, and the exit code for it.

use headwater::operator::Endpoint;
use headwater::replicas::NO_QUORUM;
use terminal::{Exit, Unconfirmed};

/// The connection's settings are wrong. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(String);

impl From<anyhow::Error> for Misconfigured {
    fn from(error: anyhow::Error) -> Self {
        Self(headwater::causes(error.as_ref()))
    }
}

impl From<headwater::bus::Error> for Misconfigured {
    fn from(error: headwater::bus::Error) -> Self {
        Self(headwater::causes(&error))
    }
}

/// The broker or a service that is needed cannot be reached. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error(
        "NATS at {url} cannot be reached: {why}; start the shop with `cargo dev`, or name the server with --server or --context"
    )]
    Broker { url: String, why: String },
    #[error(
        "login refused: {who}, by NATS at {url}; log in with --creds, --nkey, --user and --password, or --context"
    )]
    Login { url: String, who: String },
    #[error("{NO_QUORUM}; start the missing brokers: `headwater doctor` says how many")]
    Quorum,
    #[error(
        "the service {service} does not answer ({why}); start it, read its log, or log in as a user with permission"
    )]
    Service { service: String, why: String },
    #[error(
        "no service that answers has the projection {projection}, which reads the stream {stream}; start its service or, if it is removed for good, run `nats consumer rm {stream} {projection}`"
    )]
    Projection { projection: String, stream: String },
}

/// A service refused a request.
#[derive(Debug, thiserror::Error)]
#[error("{service} refuses {}: {reason}", endpoint.name())]
pub struct Refusal {
    pub service: String,
    pub endpoint: Endpoint,
    /// The service's error code, an HTTP status.
    pub code: String,
    pub reason: String,
}

/// Why there is no connection, or a service did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Misconfigured(#[from] Misconfigured),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Any other, and these with a context.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl Error {
    /// Whether no request can be answered: the broker is away, or refuses the login.
    pub fn is_broker(&self) -> bool {
        match self {
            Self::Unreachable(away) => away.is_broker(),
            Self::Other(error) => unreachable(error).is_some_and(Unreachable::is_broker),
            Self::Misconfigured(_) | Self::Refused(_) => false,
        }
    }
}

impl Unreachable {
    pub fn is_broker(&self) -> bool {
        matches!(self, Self::Broker { .. } | Self::Login { .. })
    }
}

/// What cannot be reached, if that is the error.
pub fn unreachable(error: &anyhow::Error) -> Option<&Unreachable> {
    match error.downcast_ref() {
        Some(Error::Unreachable(away)) => Some(away),
        Some(Error::Other(error)) => unreachable(error),
        _ => error.downcast_ref(),
    }
}

/// The exit code for the kind of error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref() {
        Some(Error::Other(error)) => exit_of(error),
        Some(Error::Misconfigured(_)) => Exit::Usage,
        _ if error.is::<Misconfigured>() || error.is::<Unconfirmed>() => Exit::Usage,
        _ if unreachable(error).is_some() => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// Prints a line on stderr. A failed write is ignored: the operator has closed stderr.
pub fn complain(what: &str) {
    terminal::complain("headwater", what);
}
