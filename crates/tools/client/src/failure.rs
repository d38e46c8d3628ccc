//! Why something cannot be asked, and which exit code says so.

use headwater::operator::Endpoint;
use headwater::replicas::NO_QUORUM;
use terminal::{Exit, Unconfirmed};

/// The connection cannot even be tried: what was said of it is wrong. Printed, it says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Misconfigured(String);

impl From<anyhow::Error> for Misconfigured {
    fn from(error: anyhow::Error) -> Self {
        Self(headwater::causes(&error))
    }
}

/// Somebody who is needed is not there. Printed, it says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error(
        "NATS at {url} cannot be reached: {why}; start the shop with `cargo dev`, or say where it is with --server or --context"
    )]
    Broker { url: String, why: String },
    #[error(
        "login refused: {who}, by NATS at {url}; say who you are with --creds, --nkey, --user and --password, or --context"
    )]
    Login { url: String, who: String },
    #[error("{NO_QUORUM}; start those that are away: `headwater doctor` says how many")]
    Quorum,
    #[error(
        "the service {service} does not answer ({why}); start it, look at its log, or ask as a user who may"
    )]
    Service { service: String, why: String },
    #[error(
        "no service that answers has the projection {projection}, which reads the stream {stream}; start its service, or, if it is gone for good, `nats consumer rm {stream} {projection}`"
    )]
    Projection { projection: String, stream: String },
}

/// A service answered that it will not.
#[derive(Debug, thiserror::Error)]
#[error("{service} refuses {}: {reason}", endpoint.name())]
pub struct Refusal {
    pub service: String,
    pub endpoint: Endpoint,
    /// The service's code, as HTTP has them.
    pub code: String,
    pub reason: String,
}

/// The exit code that says what kind of error it is.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    if error.is::<Misconfigured>() || error.is::<Unconfirmed>() {
        Exit::Usage
    } else if error.is::<Unreachable>() {
        Exit::Unreachable
    } else {
        Exit::Failed
    }
}

/// A closed stderr leaves nobody to tell, so that a failed write is ignored.
pub fn complain(what: &str) {
    terminal::complain("headwater", what);
}
