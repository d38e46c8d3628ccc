//! A service's own database: one writer thread with group commit, pooled readers.
//!
//! SQLite is synchronous by nature, and each hop to another thread and back costs more than the
//! statement. So all writes of a service are closures that run on **one writer thread**:
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
//! **Group commit.** Closures that wait run one after another, each in a savepoint of one SQLite
//! transaction, which commits once for all of them: one fsync pays for the whole group, so
//! throughput grows with the load while a lone write still commits at once. An `Err` or a panic
//! rolls back its own savepoint only. A caller that goes away leaves nothing half done: its
//! closure runs to the end or not at all.
//!
//! **Limits.** The queue is bounded: when it is full, [`write`](Database::write) answers
//! [`WriteError::Busy`], which the HTTP edge turns into 503. A closure above
//! [`Config::slow_write`] is logged with its name.
//!
//! **Ambiguity.** An error at commit means *unknown*, not rolled back: what is on the disk is
//! only seen after reopening. The writer then stops and with it the service
//! (see [`Database::watch`]); the supervisor of the process starts it again, and clients
//! retry under their idempotency key. A full disk is no such error: what found no room is rolled
//! back and answered [`WriteError::Full`], and the writer goes on (see `room`).
//!
//! Reads run on a few threads of their own, each with a read-only connection, each read in one
//! transaction: a [`Snapshot`] that does not move while it is read.

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
use crate::file::File;
use crate::generation;
use crate::keys::Keys;
use crate::kind::Kind;
use crate::make_folder;
use crate::opening::Opening;
use crate::outbox;
use crate::room;
use headwater_event::Position;
use headwater_telemetry::clock::Clock;
use headwater_telemetry::crash;

pub use crate::connection::{Inspection, code, is_damage, with_attached};

/// A service's database. Cheap to clone; closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Database {
    parts: Parts,
    /// The file that serves; another one after a rebuild.
    file: Arc<RwLock<Arc<File>>>,
}

/// What every file of a database is opened with.
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
            bail!(
                "{} is missing, but {} is there: the database was renamed or deleted while it was \
                 open. Put it back under its name; its newest commits are in the log. Only to \
                 begin with an empty database, remove the log",
                path.display(),
                log.display()
            );
        }
        self.open(kind, &path).await
    }

    async fn open_copy(&self) -> anyhow::Result<Database> {
        let (parts, base) = (self.of_copy(), &self.config.path);
        generation::sweep_deleted(base).context("remove what a deleted store left")?;
        let current = generation::current(base);
        let error = match parts.open(Kind::ReadStore, &current).await {
            Ok(db) => {
                generation::sweep(base).context("remove replaced stores")?;
                generation::remove(&generation::scratch(base))?;
                return Ok(db);
            }
            Err(error) => error,
        };
        let causes = error.chain();
        let is_damaged = causes
            .filter_map(|cause| cause.downcast_ref())
            .any(is_damage);
        if !is_damaged {
            return Err(error);
        }
        let aside = generation::move_aside(base, &current, self.clock.now_ms())
            .context("move the damaged store aside")?;
        tracing::error!(
            error = format!("{error:#}"),
            aside = %aside.display(),
            "the read store is damaged: moved aside, it is folded anew"
        );
        parts
            .open(Kind::ReadStore, &generation::current(base))
            .await
    }
}

/// A file that another one has taken the place of.
#[derive(Debug)]
pub struct RetiredFile {
    file: Arc<File>,
    base: PathBuf,
}

impl RetiredFile {
    /// Closes and removes it once its last reader is gone.
    pub async fn retire(self) {
        if let Err(error) = self.file.retire(&self.base).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "a replaced store could not be removed"
            );
        }
    }
}

/// What a database uses.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Writes that wait.
    pub queue: usize,
    /// Bytes of the file.
    pub file: u64,
    /// Bytes of its write-ahead log.
    pub wal: u64,
    /// Bytes that its file system has left, for those who are not root.
    pub free: Option<u64>,
}

impl Database {
    /// Opens the database of the service `owner` and brings its tables up to date.
    ///
    /// Sets WAL, `synchronous=FULL` (an acknowledged commit survives a power cut; SQLite's own
    /// default in most builds, but no driver's), foreign keys, and `secure_delete`: what is erased
    /// is overwritten.
    ///
    /// # Errors
    /// The file cannot be opened, belongs to another service, or has migrations that this
    /// program does not know or that differ from its own; or the file is missing, but its
    /// write-ahead log is there.
    pub async fn open(
        owner: &'static str,
        config: &Config,
        migrations: &'static [Migration],
        clock: Clock,
    ) -> anyhow::Result<Self> {
        Self::open_as(owner, Kind::Own, config, migrations, clock).await
    }

    /// [`open`](Self::open) for a database with [personal data](crate::personal): its key file is
    /// beside it, `users.keys` beside `users.db`, and is made with the database.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); the key file is missing, damaged, or of another database.
    pub async fn open_with_personal_data(
        owner: &'static str,
        config: &Config,
        migrations: &'static [Migration],
        clock: Clock,
    ) -> anyhow::Result<Self> {
        Self::open_as(owner, Kind::Personal, config, migrations, clock).await
    }

    /// Opens a read store, which is nothing but a copy: one that is damaged is moved aside, and
    /// an empty one takes its place, as where it was deleted. Removes what earlier rebuilds left
    /// behind.
    ///
    /// # Errors
    /// Those of [`open`](Self::open), but for damage.
    pub async fn open_copy(
        owner: &'static str,
        config: &Config,
        migrations: &'static [Migration],
        clock: Clock,
    ) -> anyhow::Result<Self> {
        Self::open_as(owner, Kind::ReadStore, config, migrations, clock).await
    }

    /// Opens the database of `owner`, of which `kind` says what it holds.
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
    ) -> anyhow::Result<Self> {
        make_folder(config)?;
        let parts = Parts {
            owner,
            clock,
            config: config.clone(),
            migrations,
        };
        if kind.is_own() {
            parts.open_own(kind).await
        } else {
            parts.open_copy().await
        }
    }

    /// Whether a rebuild was interrupted: of this read store, or of a projection in a database
    /// that is more than one.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn has_unfinished(&self, projection: Option<&str>) -> anyhow::Result<bool> {
        let path = &self.parts.config.path;
        match projection {
            None => Ok(generation::is_unfinished(path)?),
            Some(name) => Ok(generation::beside(path, name, Beside::Successor).try_exists()?),
        }
    }

    /// Opens the file beside this read store, or beside the database that has the tables of
    /// `projection`, in which the next one is folded: where an interrupted rebuild left off, or an
    /// empty one; always an empty one to compare with.
    ///
    /// # Errors
    /// It cannot be opened.
    pub async fn open_beside(
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
            // It is whole, and goes on when there is room.
            Err(error) if room::kept_it_closed(&error, &path) => Err(error),
            // What a crash left half made is of no use to anybody.
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the interrupted rebuild starts over"
                );
                generation::remove(&path)?;
                open().await
            }
        }
    }

    /// Lets `next` take the place of the file that serves, for this handle and all its clones.
    /// Gives the old one, to be retired. A damaged one keeps another name, for a person to look
    /// at.
    ///
    /// No read fails and none waits: those under way end on the old file, later ones begin on
    /// the new one.
    ///
    /// # Errors
    /// The link to the file could not be changed: the old one serves on.
    pub fn switch_to(&self, next: Self) -> anyhow::Result<RetiredFile> {
        let new = next.file();
        drop(next);
        ensure!(new.path != self.path(), "a store cannot take its own place");
        if self.is_damaged() {
            let aside = generation::keep_aside(&self.parts.config.path, self.parts.clock.now_ms())
                .context("keep the damaged store")?;
            tracing::warn!(aside = %aside.display(), "the damaged store is kept aside");
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

    /// Closes this file, which was folded beside another one, and removes it.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn throw_away(self) -> anyhow::Result<()> {
        let (file, base) = (self.file(), self.parts.config.path.clone());
        drop(self);
        file.retire(&base).await
    }

    /// What happened to the file, if it is not where it was opened any more and has to be.
    pub fn moved(&self) -> Option<String> {
        self.file().identity.as_ref()?.moved()
    }

    /// Why writes are refused, if they are because the disk is full.
    pub fn shortage(&self) -> Option<String> {
        self.file().writer.shortage()
    }

    /// Where the file is that serves.
    pub fn path(&self) -> PathBuf {
        self.file().path.clone()
    }

    /// Where it is looked for; once rebuilt, the file that serves is behind a link there.
    pub(crate) fn base(&self) -> &Path {
        &self.parts.config.path
    }

    /// What it uses now.
    pub fn sizes(&self) -> Sizes {
        let file = self.file();
        Sizes {
            queue: file.writer.waiting(),
            file: std::fs::metadata(&file.path).map_or(0, |file| file.len()),
            wal: generation::wal_bytes(&file.path),
            free: room::free(&file.path),
        }
    }

    /// Resolves when the file that serves is found to be damaged, with what was found.
    pub async fn damaged(&self) -> String {
        let damage = self.file().damage.clone();
        damage.wait().await
    }

    /// Whether the file that serves was found to be damaged.
    pub fn is_damaged(&self) -> bool {
        self.file().damage.is_found()
    }

    /// Notes that the file that serves is damaged.
    pub fn note_damage(&self, what: &str) {
        self.file().damage.found(what);
    }

    fn file(&self) -> Arc<File> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&file)
    }

    /// Runs `work` in a transaction on the writer thread and answers once it is on the disk.
    ///
    /// # Errors
    /// See [`WriteError`]. In all cases but `Unknown` nothing was changed.
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

    /// [`write`](Self::write) in a transaction of its own and without a savepoint: for work that
    /// changes so many pages that remembering what each was like costs more than changing them.
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
    /// What `work` returns, or that the file could not be opened.
    ///
    /// # Panics
    /// When `work` does.
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
    /// What `work` returns, or that the file could not be opened.
    ///
    /// # Panics
    /// When `work` does.
    pub async fn read_raw<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&RawSnapshot) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        self.file().readers.read_raw(work).await
    }

    /// [`read`](Self::read), and the position of the newest event in the same snapshot: what
    /// happened up to there is in what was read.
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

    /// The id of this life of the database: a database made anew has another one.
    pub fn epoch(&self) -> Arc<str> {
        Arc::clone(&self.file().epoch)
    }

    /// The keys of personal data, and of hashes.
    pub(crate) fn keys(&self) -> Keys {
        self.file().keys.clone()
    }

    /// The clock that the database was opened with.
    pub fn clock(&self) -> &Clock {
        &self.parts.clock
    }

    /// The position of the newest committed event, as it changes.
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
    /// The writer stopped, which it does only after a failed commit. The process must end and be
    /// started again: see the [module](self) on ambiguity.
    pub async fn watch(self, stop: CancellationToken) -> anyhow::Result<()> {
        let stopped = stop.run_until_cancelled(async {
            loop {
                let file = self.file();
                let (path, writer) = (file.path.clone(), file.writer.clone());
                // Not held while it runs: a file that is replaced must be let go.
                drop(file);
                let stopped = writer.stopped().await;
                if self.path() == path {
                    return stopped;
                }
            }
        });
        stopped.await.unwrap_or(Ok(()))
    }

    /// Resolves when the writer thread has made a step, with an empty write of ours or with
    /// whatever it has to do before.
    pub async fn ping(&self) {
        let writer = self.file().writer.clone();
        writer.ping().await;
    }

    /// Closes the file in order: what waits is done, the WAL is moved into the file and removed.
    /// The last thing a service does; handles that are still around only give errors afterwards.
    pub async fn close(self) {
        self.file().close().await;
    }
}
