//! Opening a database for writing: its settings, its owner, its tables.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use headwater_telemetry::clock::Clock;
use headwater_telemetry::crash;
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement, Value};

use crate::config::Config;
use crate::connection::{Damage, Mode, connect, one_at_a_time};
use crate::error::Error;
use crate::identity::Identity;
use crate::keys::Keys;
use crate::migration::{self, Migration};
use crate::transaction::Tx;
use crate::{generation, idempotency, private};

/// How a file is opened.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) owner: &'static str,
    pub(super) config: Config,
    pub(super) migrations: &'static [Migration],
    pub(super) clock: Clock,
    /// The path at which the file must stay, if it must.
    pub(super) stays_at: Option<PathBuf>,
    pub(super) has_key_file: bool,
}

/// What opening found.
#[derive(Debug, Clone)]
pub(super) struct Opened {
    /// The identity of the file, if it must stay where it was opened.
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) epoch: Arc<str>,
    pub(super) head: u64,
    pub(super) keys: Keys,
}

impl Opening {
    /// Opens the file, creating it if it is missing, and migrates its tables.
    pub(super) fn open(&self) -> anyhow::Result<(DatabaseConnection, Opened)> {
        let _alone = one_at_a_time();
        let path = self.config.path.display();
        let db = self.connect()?;
        let identity = self.stays_at.as_deref().map(Identity::of).transpose();
        let mut identity = identity.with_context(|| format!("inspect {path}"))?;
        let prepared = in_transaction(&db, || self.prepare(&db));
        let (epoch, keys) = prepared.with_context(|| format!("prepare {path}"))?;
        scrub(&db, self.has_key_file).with_context(|| format!("remove clear text from {path}"))?;
        if let Some(path) = keys.path() {
            let of = || format!("inspect {}", path.display());
            let key_file = Identity::of(path).with_context(of)?;
            identity = identity.map(|identity| identity.with(key_file));
        }
        let opened = Opened {
            identity: identity.map(Arc::new),
            epoch,
            head: crate::outbox::head(&db)?,
            keys,
        };
        Ok((db, opened))
    }

    fn connect(&self) -> anyhow::Result<DatabaseConnection> {
        let file = &self.config.path;
        let path = file.display();
        // SQLite gives the write-ahead log and its index the mode of the database.
        private::make_file(file).with_context(|| format!("create {path}"))?;
        generation::narrow(file);
        let set_up = |connection: &rusqlite::Connection| {
            connection.execute_batch(
                "PRAGMA busy_timeout = 5000;
                 PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 PRAGMA foreign_keys = ON;
                 PRAGMA secure_delete = ON;
                 PRAGMA cache_size = -16000;
                 PRAGMA temp_store = MEMORY",
            )
        };
        connect(file, Mode::Write, set_up).with_context(|| format!("open {path}"))
    }

    /// Migrates the tables; returns the epoch and the keys.
    fn prepare(&self, db: &DatabaseConnection) -> anyhow::Result<(Arc<str>, Keys)> {
        migration::apply_chassis(db).context("migrate")?;
        // Before the service's migrations, which must not run on another service's database.
        let epoch = claim(db, self.owner, &self.clock).context("check the owner")?;
        let keys = self.open_keys(db)?;
        let (clock, damage) = (self.clock.clone(), Damage::default());
        let tx = Tx::new(db.clone(), self.owner, clock, damage, keys.clone());
        idempotency::hash_clear_keys(&tx).context("hash the idempotency keys")?;
        migration::apply_own(&tx, self.migrations).context("migrate")?;
        Ok((epoch, keys))
    }

    /// The keys of the database; a key file is next to the file that the path leads to.
    fn open_keys(&self, db: &DatabaseConnection) -> anyhow::Result<Keys> {
        if !self.has_key_file {
            return Keys::in_database(db);
        }
        let file = self
            .config
            .path
            .canonicalize()
            .context("resolve the path of the file")?;
        Keys::in_file(db, &file.with_extension("keys"), self.owner)
    }
}

/// Removes, once, the clear text of an earlier version from the file and its log. Its tables were
/// dropped and overwritten. A file with personal data is also rewritten as a whole, because a
/// program that does not overwrite deleted data may have written to it.
fn scrub(db: &DatabaseConnection, has_key_file: bool) -> anyhow::Result<()> {
    let query = |sql: &str| {
        let statement = Statement::from_string(db.get_database_backend(), sql);
        let row = db.query_one_raw(statement)?.context("no row")?;
        Ok::<i64, anyhow::Error>(row.try_get_by_index(0)?)
    };
    if query("SELECT scrub_due FROM headwater_database")? == 0 {
        return Ok(());
    }
    if has_key_file {
        // In an unnamed file: the whole database may not fit into memory.
        db.execute_unprepared("PRAGMA temp_store = FILE")?;
        db.execute_unprepared("VACUUM")
            .context("it needs as much free space as the size of the file")?;
        db.execute_unprepared("PRAGMA temp_store = MEMORY")?;
    }
    crash::point("erasure.scrubbed");
    if query("PRAGMA wal_checkpoint(TRUNCATE)")? != 0 {
        tracing::error!(
            "the write-ahead log may still hold clear text of an earlier version, because another \
             process reads the database: end that process, then restart this service"
        );
        return Ok(());
    }
    db.execute_unprepared("UPDATE headwater_database SET scrub_due = 0")?;
    Ok(())
}

/// Runs `work` in a transaction.
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

/// Stores the owner and the epoch of a new database, or checks the owner of an existing one.
/// Returns the epoch.
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
    if found != owner {
        let why = format!(
            "it belongs to the service `{found}`, this is `{owner}`: give each service a separate \
             file"
        );
        bail!(Error::OtherOwner(why.into()));
    }
    let epoch: String = row.try_get_by("epoch")?;
    Ok(epoch.into())
}
