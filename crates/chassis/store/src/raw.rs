//! A snapshot that is read by prepared statements alone.

use rusqlite::{Connection, OptionalExtension as _, Params, Row};
use sea_orm::{DbErr, RuntimeErr};

use crate::connection::Damage;

/// One unmoving view of the database, like a [`Snapshot`](crate::transaction::Snapshot), without sea-orm: for
/// answers of many rows. What sea-orm makes of a row (every value on its own, under its name,
/// copied once more into the model) costs more than finding it. Exists only inside
/// [`Database::read_raw`](crate::database::Database::read_raw).
#[derive(Debug)]
pub struct RawSnapshot {
    connection: Connection,
    damage: Damage,
}

impl RawSnapshot {
    pub(super) fn new(connection: Connection, damage: Damage) -> Self {
        Self { connection, damage }
    }

    /// What `read` makes of each row that `sql` gives. The statement is prepared once and kept.
    ///
    /// # Errors
    /// The database's, or what `read` returns.
    pub fn rows<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, DbErr> {
        self.contain(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut found| found.query_map(values, read)?.collect()),
        )
    }

    /// The same up to the first row that `read` does not want: the rows behind it are not read.
    ///
    /// # Errors
    /// The database's, or what `read` returns.
    pub fn rows_while<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
    ) -> Result<Vec<T>, DbErr> {
        self.contain(self.connection.prepare_cached(sql).and_then(|mut found| {
            let rows = found.query_map(values, read)?;
            rows.map_while(Result::transpose).collect()
        }))
    }

    /// The same for the first row, if there is one.
    ///
    /// # Errors
    /// The database's, or what `read` returns.
    pub fn row<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, DbErr> {
        self.contain(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut found| found.query_row(values, read).optional()),
        )
    }

    /// Begins or ends the view.
    pub(super) fn control(&self, sql: &str) -> Result<(), DbErr> {
        self.contain(
            self.connection
                .prepare_cached(sql)
                .and_then(|mut it| it.execute([])),
        )
        .map(drop)
    }

    /// A file that is damaged is noted.
    fn contain<T>(&self, result: rusqlite::Result<T>) -> Result<T, DbErr> {
        let result = result.map_err(|error| DbErr::Query(RuntimeErr::Rusqlite(error.into())));
        self.damage.note(&result);
        result
    }
}
