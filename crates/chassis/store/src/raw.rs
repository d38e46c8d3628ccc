//! A snapshot that is read with prepared statements only.

use rusqlite::{Connection, OptionalExtension as _, Params, Row};
use sea_orm::{DbErr, RuntimeErr};

use crate::connection::Damage;

/// One unchanging view of the database, like a [`Snapshot`](crate::transaction::Snapshot), but
/// without sea-orm: for answers of many rows. What sea-orm does with a row (a named value per
/// column, copied again into the model) costs more than finding the row. Exists only inside
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

    /// Maps each row of `sql` with `read`. The statement is prepared once and kept.
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

    /// [`rows`](Self::rows), up to the first row for which `read` returns `None`: later rows are
    /// not read.
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

    /// [`rows`](Self::rows) for the first row only, if there is one.
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

    /// Records damage of the file.
    fn contain<T>(&self, result: rusqlite::Result<T>) -> Result<T, DbErr> {
        let result = result.map_err(|error| DbErr::Query(RuntimeErr::Rusqlite(error.into())));
        self.damage.note(&result);
        result
    }
}
