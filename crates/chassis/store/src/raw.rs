//! A snapshot that is read with prepared statements only.

use rusqlite::{Connection, ErrorCode, OptionalExtension as _, Params, Row};
use sea_orm::{DbErr, RuntimeErr};

use crate::connection::Damage;
use crate::read_limit::ReadLimit;

/// One unchanging view of the database, like a [`Snapshot`](crate::transaction::Snapshot), but
/// without sea-orm: for answers of many rows. What sea-orm does with a row (a named value per
/// column, copied again into the model) costs more than finding the row. Exists only inside
/// [`Database::read_raw`](crate::database::Database::read_raw).
#[derive(Debug)]
pub struct RawSnapshot {
    connection: Connection,
    damage: Damage,
    limit: ReadLimit,
}

impl RawSnapshot {
    pub(super) fn new(connection: Connection, damage: Damage, limit: ReadLimit) -> Self {
        Self {
            connection,
            damage,
            limit,
        }
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

    /// [`rows`](Self::rows) of a statement whose cost depends on what people search for; `None` if
    /// it takes more than about that many `steps` of SQLite's virtual machine: it is broken off then.
    pub fn rows_within<T>(
        &self,
        steps: u32,
        sql: &str,
        values: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<Vec<T>>, DbErr> {
        let (result, is_over) = self.limit.within(steps, || {
            let mut found = self.connection.prepare_cached(sql)?;
            found.query_map(values, read)?.collect()
        });
        match result {
            Err(error) if is_over && is_interrupted(&error) => Ok(None),
            result => self.contain(result).map(Some),
        }
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

fn is_interrupted(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}
