//! Why a projection cannot be rebuilt.

/// Why the tables of a projection, in a database that holds more, cannot be rebuilt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The author does not name them: set `Projection::TABLES`.
    #[error(
        "the projection {projection} does not name its TABLES: its database holds more, which a \
         rebuild must not touch"
    )]
    NoTables {
        /// The name of the projection.
        projection: &'static str,
    },
    /// A table is missing or has no primary key: the author corrects the migrations or
    /// `Projection::TABLES`.
    #[error("the projection {projection} cannot be rebuilt: {fault}")]
    UnfitTable {
        /// The name of the projection.
        projection: &'static str,
        /// The table, and what is wrong with it.
        fault: String,
    },
    /// The database cannot be read.
    #[error("check its tables")]
    Database(#[from] rusqlite::Error),
}
