//! Why an effect cannot be loaded, or has ended.

use headwater_store::WriteError;
use headwater_telemetry::BoxError;
use sea_orm::DbErr;

/// Why an effect cannot be loaded, or has ended. What came of an attempt is an
/// [`Outcome`](crate::Outcome); what is wrong with the settings of webhooks is an
/// [`Unusable`](crate::webhook::Unusable).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The ledger cannot be read.
    #[error(transparent)]
    Database(#[from] DbErr),
    /// The ledger cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError<DbErr>),
    /// The projection that writes the intents has ended.
    #[error(transparent)]
    Projection(#[from] headwater_projection::Error),
    /// The code that records attempts panicked. Its message is in the log; the service stops, and
    /// performs the attempt again when it is started.
    #[error("record an attempt")]
    Panicked(#[source] BoxError),
}
