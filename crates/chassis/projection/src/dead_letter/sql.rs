//! Statements with a fixed number of parameters.

use headwater_store::number::unsigned;
use sea_orm::{ConnectionTrait, DbErr, Statement, Value};

pub(super) fn counted<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Result<u64, DbErr> {
    let row = db.query_one_raw(statement(db, sql, values))?;
    row.map_or(Ok(0), |row| Ok(unsigned(row.try_get_by("n")?)))
}

pub(super) fn statement<const N: usize>(
    db: &impl ConnectionTrait,
    sql: &str,
    values: [Value; N],
) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}
