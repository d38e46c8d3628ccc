//! Opening a database for writing: its settings, its owner, its tables.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement, Value};

use super::connection::{Mode, connect, one_at_a_time};
use super::identity::Identity;
use super::{Config, Migration, generation, migration};
use crate::{Clock, private};

/// What opening found.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// Of the file, where it has to stay.
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) epoch: Arc<str>,
    pub(super) head: u64,
}

/// Opens the file, making it if it is not there, and brings its tables up to date.
pub(super) fn open(
    owner: &str,
    config: &Config,
    stays_at: Option<&Path>,
    migrations: &[Migration],
    clock: &Clock,
) -> anyhow::Result<(DatabaseConnection, Opened)> {
    let _alone = one_at_a_time();
    let path = config.path.display();
    // SQLite gives the write-ahead log and its index the mode of the database.
    private::make_file(&config.path).with_context(|| format!("make {path}"))?;
    generation::narrow(&config.path);
    let db = connect(&config.path, Mode::Write, |connection| {
        connection.execute_batch(
            "PRAGMA busy_timeout = 5000;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA secure_delete = ON;
             PRAGMA cache_size = -16000;
             PRAGMA temp_store = MEMORY",
        )
    })
    .with_context(|| format!("open {path}"))?;
    let identity = stays_at.map(Identity::of).transpose();
    let identity = identity.with_context(|| format!("look at {path}"))?;
    let epoch = in_transaction(&db, || {
        migration::apply_chassis(&db).context("migrate")?;
        // Before the service's own tables: another service's database stays as it is.
        let epoch = claim(&db, owner, clock).context("check the owner")?;
        migration::apply_own(&db, migrations).context("migrate")?;
        Ok(epoch)
    })
    .with_context(|| format!("prepare {path}"))?;
    let head = crate::outbox::head(&db)?;
    let identity = identity.map(Arc::new);
    Ok((
        db,
        Opened {
            identity,
            epoch,
            head,
        },
    ))
}

/// All of `work` or none of it.
fn in_transaction<T>(
    db: &DatabaseConnection,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    db.execute_unprepared("BEGIN IMMEDIATE")?;
    let result = work();
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = db.execute_unprepared(end);
    let value = result?;
    ended?;
    Ok(value)
}

/// Writes down whose database this is and which life of it, or checks it.
fn claim(db: &DatabaseConnection, owner: &str, clock: &Clock) -> anyhow::Result<Arc<str>> {
    let epoch = uuid::Uuid::now_v7().simple().to_string();
    let backend = db.get_database_backend();
    db.execute_raw(Statement::from_sql_and_values(
        backend,
        "INSERT INTO headwater_database (id, owner, epoch, created_at) VALUES (1, ?, ?, ?)
         ON CONFLICT DO NOTHING",
        [owner.into(), epoch.into(), clock.now_ms().into()] as [Value; 3],
    ))?;
    let row = db
        .query_one_raw(Statement::from_string(
            backend,
            "SELECT owner, epoch FROM headwater_database",
        ))?
        .context("headwater_database is empty")?;
    let found: String = row.try_get_by("owner")?;
    ensure!(
        found == owner,
        "it belongs to the service `{found}`, this is `{owner}`: give each service a file of its own"
    );
    let epoch: String = row.try_get_by("epoch")?;
    Ok(epoch.into())
}
