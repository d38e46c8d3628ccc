//! Opening a database for writing: its settings, its owner, its tables.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use headwater_telemetry::clock::Clock;
use headwater_telemetry::crash;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement, Value};

use crate::config::Config;
use crate::connection::{Damage, Mode, connect, one_at_a_time};
use crate::identity::Identity;
use crate::keys::Keys;
use crate::migration::{self, Migration};
use crate::transaction::Tx;
use crate::{generation, idempotency, private};

/// Where a file has to stay, and what belongs to it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) stays_at: Option<PathBuf>,
    pub(super) has_key_file: bool,
}

/// What opening found.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// Of the file, where it has to stay.
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) epoch: Arc<str>,
    pub(super) head: u64,
    pub(super) keys: Keys,
}

/// Opens the file, making it if it is not there, and brings its tables up to date.
pub(super) fn open(
    owner: &'static str,
    config: &Config,
    place: &Place,
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
    let identity = place.stays_at.as_deref().map(Identity::of).transpose();
    let mut identity = identity.with_context(|| format!("look at {path}"))?;
    let (epoch, keys) = in_transaction(&db, || {
        migration::apply_chassis(&db).context("migrate")?;
        // Before the service's own tables: another service's database stays as it is.
        let epoch = claim(&db, owner, clock).context("check the owner")?;
        let keys = open_keys(&db, config, place, owner)?;
        let damage = Damage::default();
        let tx = Tx::new(db.clone(), owner, clock.clone(), damage, keys.clone());
        idempotency::hash_clear_keys(&tx).context("hash the idempotency keys")?;
        migration::apply_own(&tx, migrations).context("migrate")?;
        Ok((epoch, keys))
    })
    .with_context(|| format!("prepare {path}"))?;
    scrub(&db, place).with_context(|| format!("clear {path} of what was in clear text"))?;
    if let Some(path) = keys.path() {
        let key_file = Identity::of(path).with_context(|| format!("look at {}", path.display()))?;
        identity = identity.map(|identity| identity.with(key_file));
    }
    let head = crate::outbox::head(&db)?;
    let identity = identity.map(Arc::new);
    Ok((
        db,
        Opened {
            identity,
            epoch,
            head,
            keys,
        },
    ))
}

/// The keys of the database; those in a file are beside the file that the path leads to.
fn open_keys(
    db: &DatabaseConnection,
    config: &Config,
    place: &Place,
    owner: &str,
) -> anyhow::Result<Keys> {
    if !place.has_key_file {
        return Keys::in_database(db);
    }
    let file = config.path.canonicalize().context("look at the file")?;
    Keys::in_file(db, &file.with_extension("keys"), owner)
}

/// Clears the file and its log of what an earlier version kept in clear text, once. Its tables were
/// dropped and are overwritten; a file with personal data is also written again as a whole, because
/// a program that does not overwrite what it deletes may have written to it.
fn scrub(db: &DatabaseConnection, place: &Place) -> anyhow::Result<()> {
    let ask = |sql: &str| {
        let statement = Statement::from_string(db.get_database_backend(), sql);
        let row = db.query_one_raw(statement)?.context("no answer")?;
        Ok::<i64, anyhow::Error>(row.try_get_by_index(0)?)
    };
    if ask("SELECT scrub_due FROM headwater_database")? == 0 {
        return Ok(());
    }
    if place.has_key_file {
        // In a file, which has no name: the whole database may not fit into memory.
        db.execute_unprepared("PRAGMA temp_store = FILE")?;
        db.execute_unprepared("VACUUM")
            .context("it needs as much free space as the file has")?;
        db.execute_unprepared("PRAGMA temp_store = MEMORY")?;
    }
    crash::point("erasure.scrubbed");
    if ask("PRAGMA wal_checkpoint(TRUNCATE)")? != 0 {
        tracing::error!(
            "the write-ahead log may still hold clear text of an earlier version, because another \
             process reads the database: end that process, then restart this service"
        );
        return Ok(());
    }
    db.execute_unprepared("UPDATE headwater_database SET scrub_due = 0")?;
    Ok(())
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
