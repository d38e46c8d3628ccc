//! Plain SQL migrations, forward only.

use anyhow::{Context as _, bail};
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement, Value};
use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::outbox;
use crate::transaction::Tx;

/// One step of a database's schema. Never change a released migration: add another.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// A name that sorts, such as `0001_orders`.
    pub name: &'static str,
    /// Its SQL statements.
    pub sql: &'static str,
    /// A step that SQL cannot do, run after the SQL in the same transaction.
    pub then: Option<Step>,
}

/// A step of a [`Migration`] in Rust.
pub type Step = fn(&Tx) -> Result<(), DbErr>;

impl Migration {
    /// A migration of SQL only.
    pub const fn sql(name: &'static str, sql: &'static str) -> Self {
        let then = None;
        Self { name, sql, then }
    }
}

/// The migrations of the chassis, which come first in every database.
const CHASSIS: &[Migration] = &[
    Migration::sql(
        "0001_chassis",
        include_str!("../migrations/0001_chassis.sql"),
    ),
    Migration::sql(
        "0002_operators",
        include_str!("../migrations/0002_operators.sql"),
    ),
    Migration::sql("0003_pause", include_str!("../migrations/0003_pause.sql")),
    Migration::sql("0004_epochs", include_str!("../migrations/0004_epochs.sql")),
    Migration::sql("0005_relay", include_str!("../migrations/0005_relay.sql")),
    Migration::sql(
        "0006_personal",
        include_str!("../migrations/0006_personal.sql"),
    ),
    Migration::sql(
        "0007_effects",
        include_str!("../migrations/0007_effects.sql"),
    ),
    Migration::sql("0008_inherited", outbox::INHERITED),
];

/// Applies the missing migrations of the chassis.
pub(super) fn apply_chassis(db: &DatabaseConnection) -> anyhow::Result<()> {
    db.execute_unprepared(
        "CREATE TABLE IF NOT EXISTS headwater_migration
             (name TEXT PRIMARY KEY, checksum TEXT NOT NULL) WITHOUT ROWID",
    )?;
    apply_missing(db, CHASSIS, |_| Ok(()))
}

/// Applies the missing migrations of the service.
pub(super) fn apply_own(tx: &Tx, own: &[Migration]) -> anyhow::Result<()> {
    let known = |name: &str| CHASSIS.iter().chain(own).any(|known| known.name == name);
    if let Some((unknown, _)) = applied(tx)?.iter().find(|(name, _)| !known(name)) {
        let why = format!(
            "the database has the migration {unknown}, which this program does not know: \
             it was written by a newer version; start that version"
        );
        bail!(Error::Newer(why.into()));
    }
    apply_missing(tx, own, |migration| {
        migration.then.map_or(Ok(()), |step| step(tx))
    })
}

fn apply_missing(
    db: &impl ConnectionTrait,
    migrations: &[Migration],
    then: impl Fn(&Migration) -> Result<(), DbErr>,
) -> anyhow::Result<()> {
    let applied = applied(db)?;
    for migration in migrations {
        let checksum = checksum(migration.sql);
        match applied.iter().find(|(name, _)| name == migration.name) {
            Some((name, was)) if *was != checksum => {
                let why = format!(
                    "the migration {name} was changed after it was applied: \
                     restore it, and add the change as a new migration"
                );
                bail!(Error::ChangedMigration(why.into()));
            }
            Some(_) => {}
            None => apply(db, migration, checksum)
                .and_then(|()| then(migration))
                .with_context(|| format!("apply the migration {}", migration.name))?,
        }
    }
    Ok(())
}

fn applied(db: &impl ConnectionTrait) -> Result<Vec<(String, String)>, DbErr> {
    let rows = db.query_all_raw(Statement::from_string(
        db.get_database_backend(),
        "SELECT name, checksum FROM headwater_migration",
    ))?;
    rows.iter()
        .map(|row| Ok((row.try_get_by("name")?, row.try_get_by("checksum")?)))
        .collect()
}

fn apply(db: &impl ConnectionTrait, migration: &Migration, checksum: String) -> Result<(), DbErr> {
    db.execute_unprepared(migration.sql)?;
    db.execute_raw(Statement::from_sql_and_values(
        db.get_database_backend(),
        "INSERT INTO headwater_migration (name, checksum) VALUES (?, ?)",
        [Value::from(migration.name), Value::from(checksum)],
    ))?;
    Ok(())
}

fn checksum(sql: &str) -> String {
    let digest = Sha256::digest(sql);
    format!("{:x}", bytes::Bytes::copy_from_slice(&digest))
}
