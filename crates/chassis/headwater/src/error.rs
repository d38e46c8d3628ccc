//! Why a service cannot start, or has ended.

use std::io;

use headwater_effect::webhook::Unusable;
use headwater_event::schema::SchemaError;
use headwater_store::WriteError;
use headwater_telemetry::BoxError;
use sea_orm::DbErr;

/// Why a service cannot start, or has ended. `?` makes one of the errors of the crates, and of a
/// text: `flag.ok_or("--flag is missing")?`. A service that has more errors of its own returns
/// those: [`main`](crate::main) takes errors of any type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot be opened, or has to be closed.
    #[error(transparent)]
    Store(#[from] headwater_store::Error),
    /// The settings of the broker are invalid, or the connection ended.
    #[error(transparent)]
    Nats(#[from] headwater_nats::Error),
    /// The service cannot listen: an address is in use, for example.
    #[error(transparent)]
    Http(#[from] headwater_http::Error),
    /// A task of the service ended, or did not end when it was stopped.
    #[error(transparent)]
    Task(#[from] headwater_telemetry::Error),
    /// The schema that the service publishes is wrong.
    #[error("describe the events")]
    Schema(#[from] SchemaError),
    /// A projection cannot be loaded.
    #[error(transparent)]
    Projection(#[from] headwater_projection::Error),
    /// The tables of a projection could not be rebuilt when that is necessary.
    #[error(transparent)]
    Rebuild(#[from] headwater_rebuild::Error),
    /// An effect cannot be loaded.
    #[error(transparent)]
    Effect(#[from] headwater_effect::Error),
    /// The settings of webhooks are invalid.
    #[error(transparent)]
    Webhook(#[from] Unusable),
    /// A read store has one projection, because its file is replaced as a whole: give the other one
    /// a service of its own.
    #[error("a read store has one projection")]
    OneProjection,
    /// A read store has no effects: run the effect in a service with a database of its own.
    #[error(
        "{service} cannot run the effect {effect}: its database is a read store, whose file is \
         replaced as a whole when it is rebuilt, and the work would be done again. Run the effect \
         in a service with a database of its own"
    )]
    EffectOfReadStore {
        /// The name of the service.
        service: &'static str,
        /// The name of the effect.
        effect: &'static str,
    },
    /// The endpoints for operators ended: the connection was closed for good, or one panicked.
    #[error(transparent)]
    Operator(BoxError),
    /// The operating system refuses what every service needs.
    #[error("{what}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// Its reason.
        #[source]
        error: io::Error,
    },
    /// A read of the service's own failed.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// A write of the service's own failed.
    #[error(transparent)]
    Write(#[from] WriteError<DbErr>),
    /// Input or output of the service's own failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Any other error of the service's own.
    #[error(transparent)]
    Other(#[from] BoxError),
}

/// What a service returns when it ends, and what its parts return that only end it.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

impl From<&'static str> for Error {
    fn from(text: &'static str) -> Self {
        Self::Other(text.into())
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self::Other(text.into())
    }
}
