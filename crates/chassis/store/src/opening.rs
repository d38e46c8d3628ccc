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

/// How a file is opened.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) owner: &'static str,
    pub(super) config: Config,
    pub(super) migrations: &'static [Migration],
    pub(super) clock: Clock,
    /// Where the file has to stay, if it has to.
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

impl Opening {
    /// Opens the file, making it if it is not there, and brings its tables up to date.
    pub(super) fn open(&self) -> anyhow::Result<(DatabaseConnection, Opened)> {
        let _alone = one_at_a_time();
        let path = self.config.path.display();
        let db = self.connect()?;
        let identity = self.stays_at.as_deref().map(Identity::of).transpose();
        let mut identity = identity.with_context(|| format!("look at {path}"))?;
        let prepared = in_transaction(&db, || self.prepare(&db));
        let (epoch, keys) = prepared.with_context(|| format!("prepare {path}"))?;
        scrub(&db, self.has_key_file)
            .with_context(|| format!("clear {path} of what was in clear text"))?;
        if let Some(path) = keys.path() {
            let of = || format!("look at {}", path.display());
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
        private::make_file(file).with_context(|| format!("make {path}"))?;
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

    /// Brings the tables up to date; gives the epoch and the keys.
    fn prepare(&self, db: &DatabaseConnection) -> anyhow::Result<(Arc<str>, Keys)> {
        migration::apply_chassis(db).context("migrate")?;
        // Before the service's own tables: another service's database stays as it is.
        let epoch = claim(db, self.owner, &self.clock).context("check the owner")?;
        let keys = self.open_keys(db)?;
        let (clock, damage) = (self.clock.clone(), Damage::default());
        let tx = Tx::new(db.clone(), self.owner, clock, damage, keys.clone());
        idempotency::hash_clear_keys(&tx).context("hash the idempotency keys")?;
        migration::apply_own(&tx, self.migrations).context("migrate")?;
        Ok((epoch, keys))
    }

    /// The keys of the database; those in a file are beside the file that the path leads to.
    fn open_keys(&self, db: &DatabaseConnection) -> anyhow::Result<Keys> {
        if !self.has_key_file {
            return Keys::in_database(db);
        }
        let file = self
            .config
            .path
            .canonicalize()
            .context("look at the file")?;
        Keys::in_file(db, &file.with_extension("keys"), self.owner)
    }
}

/// Clears the file and its log of what an earlier version kept in clear text, once. Its tables were
/// dropped and are overwritten; a file with personal data is also written again as a whole, because
/// a program that does not overwrite what it deletes may have written to it.
fn scrub(db: &DatabaseConnection, has_key_file: bool) -> anyhow::Result<()> {
    let ask = |sql: &str| {
        let statement = Statement::from_string(db.get_database_backend(), sql);
        let row = db.query_one_raw(statement)?.context("no answer")?;
        Ok::<i64, anyhow::Error>(row.try_get_by_index(0)?)
    };
    if ask("SELECT scrub_due FROM headwater_database")? == 0 {
        return Ok(());
    }
    if has_key_file {
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
