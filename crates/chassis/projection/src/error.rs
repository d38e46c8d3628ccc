//! Why a projection cannot be loaded, or has ended.

use headwater_store::WriteError;
use headwater_telemetry::BoxError;
use sea_orm::DbErr;

/// Why a projection cannot be loaded, or has ended. Why an event cannot be applied is an
/// [`ApplyError`](crate::ApplyError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another version of the projection built the tables. `Service::project` rebuilds them.
    #[error(
        "the tables of the projection {projection} are of version {found}, this program has \
         {known}: only a service (`Service::project`) rebuilds them"
    )]
    OtherVersion {
        /// The name of the projection.
        projection: &'static str,
        /// The version of the tables.
        found: u32,
        /// The version of the program.
        known: u32,
    },
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// The database cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError<DbErr>),
    /// A pause cannot be stored. The projection goes on.
    #[error("store the pause")]
    PauseNotStored(#[source] WriteError<DbErr>),
    /// A pause cannot be removed. The projection stays paused.
    #[error("forget the pause")]
    PauseNotRemoved(#[source] WriteError<DbErr>),
    /// The connection for events cannot be made.
    #[error(transparent)]
    Broker(#[from] headwater_nats::Error),
    /// The author's code panicked. Its message is in the log; the service stops.
    #[error(transparent)]
    Panicked(BoxError),
    /// Any other error, such as no more threads.
    #[error(transparent)]
    Other(BoxError),
}
