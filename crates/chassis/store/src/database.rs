//! The database of a service: one writer thread with group commit, pooled readers.
//!
//! SQLite is synchronous, and a hop to another thread and back costs more than a statement. So
//! all writes of a service are closures that run on **one writer thread**:
//!
//! ```ignore
//! let order = db.write(move |tx| {
//!     let known = store::known(tx, &request)?;                      // load
//!     let (order, placed) = order::place(request, &known, now)?;    // decide: pure, no I/O
//!     store::insert(tx, &order)?;                                   // save
//!     outbox::append(tx, &placed)?;                                 // append
//!     Ok(order)
//! }).await?;                                                        // answers after the fsync
//! ```
//!
//! **Group commit.** Waiting closures run one after another, each in a savepoint of one SQLite
//! transaction. It commits once: one fsync pays for the whole group, so throughput grows with the
//! load, and a lone write still commits at once. An `Err` or a panic rolls back only its savepoint.
//! If the caller goes away, its closure still runs to the end or not at all.
//!
//! **Limits.** The queue is bounded: if it is full, [`write`](Database::write) returns
//! [`WriteError::Busy`], which the HTTP edge turns into 503. A closure that takes longer than
//! [`Config::slow_write`] is logged with its name.
//!
//! **Ambiguity.** If a commit fails, its outcome is *unknown*: only reopening the file shows what
//! is on the disk. The writer stops, and with it the service (see [`Database::watch`]). The
//! supervisor of the process starts it again, and clients retry with their idempotency key. A full
//! disk does not count as a failed commit: the transaction is rolled back, its writes return
//! [`WriteError::Full`], and the writer continues (see `room`).
//!
//! Reads run on a few reader threads, each with a read-only connection, and each read in one
//! transaction: a [`Snapshot`] that does not change while it is read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, bail, ensure};
use sea_orm::DbErr;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use crate::bulk::Bulk;
pub use crate::migration::{Migration, Step};
pub use crate::raw::RawSnapshot;
pub use crate::transaction::{Snapshot, Tx};

use crate::Beside;
use crate::Committed;
use crate::WriteError;
use crate::config::Config;
use crate::error::Error;
use crate::file::File;
use crate::generation;
use crate::keys::Keys;
use crate::kind::Kind;
use crate::make_folder;
use crate::opening::Opening;
use crate::outbox;
use crate::reason;
use crate::room;
use headwater_event::Position;
use headwater_telemetry::causes;
use headwater_telemetry::clock::Clock;
use headwater_telemetry::crash;

pub use crate::connection::{Inspection, code, is_damage, with_attached};

/// A service's database. Cheap to clone; closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Database {
    parts: Parts,
    /// The live file; a rebuild replaces it.
    file: Arc<RwLock<Arc<File>>>,
}

/// The arguments with which every file of a database is opened.
#[derive(Debug, Clone)]
struct Parts {
    owner: &'static str,
    clock: Clock,
    config: Config,
    migrations: &'static [Migration],
}

impl Parts {
    fn of_copy(&self) -> Self {
        Self {
            config: self.config.of_copy(),
            ..self.clone()
        }
    }

    async fn open(&self, kind: Kind, path: &Path) -> anyhow::Result<Database> {
        let config = Config {
            path: path.to_owned(),
            ..self.config.clone()
        };
        let file = File::open(Opening {
            owner: self.owner,
            config,
            migrations: self.migrations,
            clock: self.clock.clone(),
            stays_at: kind.is_own().then(|| self.config.path.clone()),
            has_key_file: kind == Kind::Personal,
        });
        Ok(Database {
            file: Arc::new(RwLock::new(Arc::new(file.await?))),
            parts: self.clone(),
        })
    }

    async fn open_own(&self, kind: Kind) -> anyhow::Result<Database> {
        let path = generation::current(&self.config.path);
        if let Some(log) = generation::orphaned_log(&path) {
            let why = format!(
                "{} is missing, but {} exists: the database was renamed or deleted while it was \
                 open. Put it back under its name; its newest commits are in the log. Remove the \
                 log only to start with an empty database",
                path.display(),
                log.display()
            );
            bail!(Error::Missing(why.into()));
        }
        self.open(kind, &path).await
    }

    async fn open_copy(&self) -> anyhow::Result<Database> {
        let (parts, base) = (self.of_copy(), &self.config.path);
        generation::sweep_deleted(base).context("remove the files of a deleted store")?;
        let current = generation::current(base);
        let error = match parts.open(Kind::ReadStore, &current).await {
            Ok(db) => {
                generation::sweep(base).context("remove replaced stores")?;
                generation::remove(&generation::scratch(base))?;
                return Ok(db);
            }
            Err(error) => error,
        };
        let is_damaged = error
            .chain()
            .filter_map(|cause| cause.downcast_ref())
            .any(is_damage);
        if !is_damaged {
            return Err(error);
        }
        let aside = generation::move_aside(base, &current, self.clock.now_ms())
            .context("move the damaged store aside")?;
        tracing::error!(
            error = causes(error.as_ref()),
            aside = %aside.display(),
            "the read store is damaged; it was moved aside and is rebuilt"
        );
        parts
            .open(Kind::ReadStore, &generation::current(base))
            .await
    }
}

/// A file that was replaced in a swap.
#[derive(Debug)]
pub struct RetiredFile {
    file: Arc<File>,
    base: PathBuf,
}

impl RetiredFile {
    /// Closes and removes the file once its last reader is done.
    pub async fn retire(self) {
        if let Err(error) = self.file.retire(&self.base).await {
            tracing::warn!(%error, "cannot remove the replaced store");
        }
    }
}

/// The space and the queue that a database uses.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Sizes {
    /// Number of waiting writes.
    pub queue: usize,
    /// Size of the file, in bytes.
    pub file: u64,
    /// Size of the write-ahead log, in bytes.
    pub wal: u64,
    /// Free bytes of the file system for users other than root.
    pub free: Option<u64>,
}

impl Database {
    /// Opens the database of the service `owner` and migrates its tables.
    ///
    /// Sets WAL, `synchronous=FULL` (an acknowledged commit survives a power cut; this is SQLite's
    /// default in most builds, but not that of drivers), foreign keys, and `secure_delete` (deleted
    /// data is overwritten).
    ///
    /// # Errors
    /// The file belongs to another service ([`Error::OtherOwner`]), has migrations that are unknown
    /// to this program ([`Error::Newer`]) or differ from its own ([`Error::ChangedMigration`]), is
    /// missing while its write-ahead log exists ([`Error::Missing`]), is damaged
    /// ([`Error::Damaged`]), or cannot be opened, perhaps because the disk is full
    /// ([`Error::Full`]).
    pub async fn open(
        owner: &'static str,
        config: &Config,
        migrations: &'static [Migration],
        clock: Clock,
    ) -> Result<Self, Error> {
        Self::open_as(owner, Kind::Own, config, migrations, clock).await
    }

    /// [`open`](Self::open) for a database with [personal data](crate::personal). Its key file is
    /// next to it (`users.keys` next to `users.db`) and is created with the database.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); or the key file is missing, damaged, too old, or belongs to
    /// another database ([`Error::KeyFile`]).
    pub async fn open_with_personal_data(
        owner: &'static str,
        config: &Config,
        migrations: &'static [Migration],
        clock: Clock,
    ) -> Result<Self, Error> {
        Self::open_as(owner, Kind::Personal, config, migrations, clock).await
    }

    /// Opens a read store. A read store is only a copy: if it is damaged, it is moved aside and
    /// replaced with an empty one; if it is missing, an empty one is created. Removes files that
    /// earlier rebuilds left behind.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), except damage.
    pub async fn open_copy(
        owner: &'static str,
        config: &Config,
        migrations: &'static [Migration],
        clock: Clock,
    ) -> Result<Self, Error> {
        Self::open_as(owner, Kind::ReadStore, config, migrations, clock).await
    }

    /// Opens the database of `owner` as `kind`.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), [`open_with_personal_data`](Self::open_with_personal_data)
    /// and [`open_copy`](Self::open_copy).
    pub async fn open_as(
        owner: &'static str,
        kind: Kind,
        config: &Config,
        migrations: &'static [Migration],
        clock: Clock,
    ) -> Result<Self, Error> {
        make_folder(config)?;
        let parts = Parts {
            owner,
            clock,
            config: config.clone(),
            migrations,
        };
        let opened = if kind.is_own() {
            parts.open_own(kind).await
        } else {
            parts.open_copy().await
        };
        opened
            .context("open the database")
            .map_err(|error| reason::of(error, &config.path))
    }

    /// Whether a rebuild was interrupted: that of this read store, or that of `projection` in a
    /// database that holds more than its tables.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn has_unfinished(&self, projection: Option<&str>) -> io::Result<bool> {
        let path = &self.parts.config.path;
        match projection {
            None => generation::is_unfinished(path),
            Some(name) => generation::beside(path, name, Beside::Successor).try_exists(),
        }
    }

    /// Opens the file in which this read store, or the tables of `projection`, are rebuilt next to
    /// the live one. To replace the live one, this is the file of an interrupted rebuild or an
    /// empty one; to compare, always an empty one.
    ///
    /// # Errors
    /// [`Error::Full`]: the file stays for the next attempt; or no file can be opened.
    pub async fn open_beside(
        &self,
        beside: Beside,
        projection: Option<&str>,
    ) -> Result<Self, Error> {
        let opened = self.try_open_beside(beside, projection).await;
        opened.map_err(|error| reason::of(error, &self.parts.config.path))
    }

    async fn try_open_beside(
        &self,
        beside: Beside,
        projection: Option<&str>,
    ) -> anyhow::Result<Self> {
        let base = &self.parts.config.path;
        let path = match (beside, projection) {
            (_, Some(name)) => generation::beside(base, name, beside),
            (Beside::Successor, None) => generation::next(base)?,
            (Beside::Scratch, None) => generation::scratch(base),
        };
        if beside == Beside::Scratch {
            generation::remove(&path)?;
        }
        let parts = self.parts.of_copy();
        let open = || parts.open(Kind::ReadStore, &path);
        match open().await {
            Ok(next) => Ok(next),
            // The file is intact; the rebuild continues once there is space.
            Err(error) if room::failed_on_full_disk(&error, &path) => Err(error),
            // A crash left an unusable file.
            Err(error) => {
                tracing::warn!(
                    error = causes(error.as_ref()),
                    "cannot open the interrupted rebuild; it starts over"
                );
                generation::remove(&path)?;
                open().await
            }
        }
    }

    /// Swaps `next` in for the live file, for this handle and all its clones. Returns the old file,
    /// to be retired. A damaged old file is kept under another name for the operator.
    ///
    /// No read fails or waits: running reads finish on the old file, later reads use the new one.
    ///
    /// # Errors
    /// The link to the file cannot be changed. The old file stays live.
    pub fn switch_to(&self, next: Self) -> Result<RetiredFile, Error> {
        let new = next.file();
        drop(next);
        self.switch_file(new)
            .map_err(|error| reason::of(error, &self.parts.config.path))
    }

    fn switch_file(&self, new: Arc<File>) -> anyhow::Result<RetiredFile> {
        ensure!(new.path != self.path(), "a store cannot replace itself");
        if self.is_damaged() {
            let aside = generation::keep_aside(&self.parts.config.path, self.parts.clock.now_ms())
                .context("keep the damaged store")?;
            tracing::warn!(aside = %aside.display(), "kept the damaged store aside");
        }
        generation::switch(&self.parts.config.path, &new.path)
            .context("switch to the new store")?;
        crash::point("rebuild.switched");
        let mut file = self.file.write().unwrap_or_else(PoisonError::into_inner);
        Ok(RetiredFile {
            file: std::mem::replace(&mut *file, new),
            base: self.parts.config.path.clone(),
        })
    }

    /// Closes and removes this file, which was built next to a live one.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub async fn throw_away(self) -> io::Result<()> {
        let (file, base) = (self.file(), self.parts.config.path.clone());
        drop(self);
        file.retire(&base).await
    }

    /// What happened to the file, if it has to stay where it was opened and is no longer there.
    pub fn moved(&self) -> Option<String> {
        self.file().identity.as_ref()?.moved()
    }

    /// Why writes are refused, if the disk is full.
    pub fn shortage(&self) -> Option<String> {
        self.file().writer.shortage()
    }

    /// The path of the live file.
    pub fn path(&self) -> PathBuf {
        self.file().path.clone()
    }

    /// The configured path; after a rebuild, it is a link to the live file.
    pub(crate) fn base(&self) -> &Path {
        &self.parts.config.path
    }

    /// The space and the queue that it uses now.
    pub fn sizes(&self) -> Sizes {
        let file = self.file();
        Sizes {
            queue: file.writer.waiting(),
            file: std::fs::metadata(&file.path).map_or(0, |file| file.len()),
            wal: generation::wal_bytes(&file.path),
            free: room::free(&file.path),
        }
    }

    /// Resolves with the damage once the live file is found to be damaged.
    pub async fn damaged(&self) -> String {
        let damage = self.file().damage.clone();
        damage.wait().await
    }

    /// Whether the live file was found to be damaged.
    pub fn is_damaged(&self) -> bool {
        self.file().damage.is_found()
    }

    /// Records that the live file is damaged.
    pub fn note_damage(&self, what: &str) {
        self.file().damage.found(what);
    }

    fn file(&self) -> Arc<File> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&file)
    }

    /// Runs `work` in a transaction on the writer thread. Returns after the fsync.
    ///
    /// # Errors
    /// See [`WriteError`]. In all cases but `Unknown`, nothing was changed.
    pub async fn write<T, E, F>(&self, work: F) -> Result<Committed<T>, WriteError<E>>
    where
        F: FnOnce(&Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let (value, position) = self.file().writer.write(work, false).await?;
        let position = position.map(|position| self.position(position));
        Ok(Committed { value, position })
    }

    /// [`write`](Self::write) in a separate transaction and without a savepoint, whose journal would
    /// cost more than the work itself where many pages change.
    ///
    /// # Errors
    /// See [`write`](Self::write).
    pub async fn write_exclusive<T, E, F>(&self, work: F) -> Result<T, WriteError<E>>
    where
        F: FnOnce(&Tx) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        Ok(self.file().writer.write(work, true).await?.0)
    }

    /// Runs `work` on one snapshot of the database, on a reader thread.
    ///
    /// # Errors
    /// The error of `work`; or the file cannot be opened or the read takes too long.
    ///
    /// # Panics
    /// If `work` does.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        self.file().readers.read(work).await
    }

    /// [`read`](Self::read) for answers of many rows.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    ///
    /// # Panics
    /// If `work` does.
    pub async fn read_raw<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&RawSnapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        self.file().readers.read_raw(work).await
    }

    /// [`read`](Self::read), and the position of the newest event in the same snapshot: the result
    /// includes everything up to that position.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub async fn read_as_of<T, E, F>(&self, work: F) -> Result<(T, Position), E>
    where
        F: FnOnce(&Snapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let read = |snapshot: &_| Ok::<_, E>((work(snapshot)?, outbox::head(snapshot)?));
        let (found, head) = self.read(read).await?;
        Ok((found, self.position(head)))
    }

    /// The service whose database this is, and the source of the events in its outbox.
    pub fn owner(&self) -> &'static str {
        self.parts.owner
    }

    /// The epoch of the database; a new database starts a new epoch.
    pub fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.file().epoch)
    }

    /// The keys of personal data and of hashes.
    pub(crate) fn keys(&self) -> Keys {
        self.file().keys.clone()
    }

    /// The configuration that the database was opened with.
    pub fn config(&self) -> &Config {
        &self.parts.config
    }

    /// Whether it holds original data, and is not a read store.
    pub fn is_own(&self) -> bool {
        self.file().identity.is_some()
    }

    /// The clock that the database was opened with.
    pub fn clock(&self) -> &Clock {
        &self.parts.clock
    }

    /// The position of the newest committed event, updated on every change.
    pub fn head(&self) -> watch::Receiver<u64> {
        self.file().writer.head()
    }

    /// `position` in this database's outbox.
    pub fn position(&self, position: u64) -> Position {
        Position {
            source: self.parts.owner.to_string(),
            position,
        }
    }

    /// Watches the writer thread until `stop`: a task for the supervisor.
    ///
    /// # Errors
    /// [`Error::WriterStopped`]: after an error. The process must be restarted: see the
    /// [module](self) on ambiguity.
    pub async fn watch(self, stop: CancellationToken) -> Result<(), Error> {
        let stopped = stop.run_until_cancelled(async {
            loop {
                let file = self.file();
                let (path, writer) = (file.path.clone(), file.writer.clone());
                // Not kept while waiting: a replaced file must be released.
                drop(file);
                let stopped = writer.stopped().await;
                if self.path() == path {
                    return stopped;
                }
            }
        });
        stopped.await.map_or(Ok(()), Err)
    }

    /// Resolves when the writer thread has made a step: an empty write, or the work queued before
    /// it.
    pub async fn ping(&self) {
        let writer = self.file().writer.clone();
        writer.ping().await;
    }

    /// Closes the file in order: finishes waiting work, moves the WAL into the file and removes it.
    /// This is the last thing that a service does; remaining handles return errors afterwards.
    pub async fn close(self) {
        self.file().close().await;
    }
}
