//! Backups of a service's database: made while it runs, checked, and restored while it is stopped.
//!
//! A copy is made with SQLite's backup API in one read transaction, so it shows one moment and
//! includes the write-ahead log. The writer is not delayed; its log grows by what is written
//! meanwhile. (`VACUUM INTO` keeps its read transaction open while it writes, and renumbers rows.)
//!
//! The key file is never included: a person with both files can read the personal data.

mod error;
mod target;
mod watch;

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use headwater_store::generation::appended;
use headwater_store::{personal, private, room};
use headwater_telemetry::Clock;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use sha2::{Digest as _, Sha256};

pub use crate::error::Error;
pub use crate::target::{RestoreTarget, Restored};
use crate::watch::report;
pub use crate::watch::{Progress, Watch, unwatched};

/// How long to wait while others lock a database.
const BUSY: Duration = Duration::from_secs(5);

/// Pages of a database copied at a time.
const PAGES: i32 = 1024;

/// Steps of a check between two looks whether the copy is cancelled.
const CHECK_STEPS: i32 = 1024;

/// The pause between two looks whether another backup has ended.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Suffix of a copy's digest file, which `sha256sum` can read.
const DIGEST: &str = ".sha256";

/// Suffix of the file whose modification time is that of the database's newest backup. Never
/// rename.
const STAMP: &str = ".backed-up";

/// What a database file contains: whose it is, and how far it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The service.
    pub owner: String,
    /// The epoch of the database.
    pub epoch: String,
    /// The newest position in its outbox; 0 if empty.
    pub head: u64,
    /// The migrations that were applied.
    pub migrations: Vec<String>,
    /// Whether the service itself is a projection, and not a source that has one.
    pub is_read_store: bool,
    /// The id of its key file, and the least number of keys in it.
    keys: Option<(Vec<u8>, u64)>,
}

impl Facts {
    /// Reads the facts of the database at `path`, which may be in use.
    ///
    /// # Errors
    /// The file cannot be read, or is not the database of a service ([`Error::NotADatabase`]).
    pub fn of(path: &Path) -> Result<Self, Error> {
        let read = || Self::read(&open_to_look(path)?).with_context(|| reading(path));
        read().map_err(Error::of)
    }

    fn read(db: &Connection) -> anyhow::Result<Self> {
        let is_ours =
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'headwater_database')";
        let is_ours: bool = db.query_row(is_ours, [], |row| row.get(0))?;
        let why = "it is not the database of a service";
        ensure!(is_ours, Error::NotADatabase(why.into()));
        let (owner, epoch): (String, String) = db
            .query_row("SELECT owner, epoch FROM headwater_database", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .context("read the owner of the database")?;
        let head = "SELECT coalesce(max(position), 0) FROM headwater_outbox";
        let head = db.query_row(head, [], |row| row.get(0))?;
        let mut names = db.prepare("SELECT name FROM headwater_migration ORDER BY name")?;
        let migrations = names.query_map([], |row| row.get(0))?;
        let is_read_store = "SELECT EXISTS (SELECT 1 FROM headwater_projection WHERE name = ?)";
        let is_read_store = db.query_row(is_read_store, [&owner], |row| row.get(0))?;
        let keys = "SELECT key_file, key_slots FROM headwater_database WHERE key_file IS NOT NULL";
        Ok(Self {
            owner,
            epoch,
            head,
            migrations: migrations.collect::<rusqlite::Result<_>>()?,
            is_read_store,
            // Databases of an early version have no such column, and no key file.
            keys: db
                .query_row(keys, [], |row| Ok((row.get(0)?, row.get(1)?)))
                .ok(),
        })
    }

    /// Whether losing it loses nothing: everything in it comes from others' events.
    pub fn is_copy(&self) -> bool {
        self.head == 0 && self.is_read_store
    }

    /// Checks that the key file next to `database`, where this copy is to be restored, can open it.
    ///
    /// # Errors
    /// [`Error::Store`]: the key file is missing, damaged, of another database, or too old.
    pub fn check_keys(&self, database: &Path) -> Result<(), Error> {
        let Some((id, slots)) = &self.keys else {
            return Ok(());
        };
        let file = database.with_extension("keys");
        Ok(personal::check_key_file(&file, &self.owner, id, *slots)?)
    }
}

/// A complete, checked copy on the disk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Copy {
    /// Where it is.
    pub file: PathBuf,
    /// Its facts.
    pub facts: Facts,
    /// Its size.
    pub bytes: u64,
    /// Its digest, in hexadecimal.
    pub sha256: String,
}

/// Copies the database at `path`, which may be in use, into `folder`, as
/// `orders-20261130T041200Z.db` with a digest file. `watch` sees its progress, and may cancel it.
///
/// # Errors
/// The database cannot be read or written, is damaged ([`Error::Damaged`]), or does not fit on the
/// disk; or the copy was cancelled ([`Error::Cancelled`]). No partial copy is left.
pub fn make(path: &Path, folder: &Path, clock: &Clock, watch: &Watch) -> Result<Copy, Error> {
    try_make(path, folder, clock, watch).map_err(Error::of)
}

fn try_make(path: &Path, folder: &Path, clock: &Clock, watch: &Watch) -> anyhow::Result<Copy> {
    private::make_folder(folder).with_context(|| format!("make {}", folder.display()))?;
    let source = open(path)?;
    let facts = Facts::read(&source)?;
    let part = Part::begin(folder.join(format!(".{}.part", facts.owner)), watch)?;
    let mut began_ms = clock.now_ms();
    let mut name = name(&source, &facts.owner, began_ms)?;
    if folder.join(&name).exists() {
        // Names have a resolution of one second, and the existing copy was already reported.
        thread::sleep(Duration::from_secs(1));
        began_ms = clock.now_ms();
        name = self::name(&source, &facts.owner, began_ms)?;
    }
    let facts = part.fill(&source, watch)?;
    drop(source);
    // This takes long, and a digest file should not be alone for long.
    part.file.sync_all().context("sync the copy")?;
    let sha256 = digest(&part.path, watch)?;
    let beside = folder.join(format!("{name}{DIGEST}"));
    write_private(&beside, &format!("{sha256}  {name}\n"))?;
    let file = folder.join(name);
    let ended = part.end(&file);
    let bytes = ended.inspect_err(|_| drop(fs::remove_file(&beside)))?;
    note(path, began_ms).with_context(|| format!("record the backup of {}", path.display()))?;
    Ok(Copy {
        file,
        facts,
        bytes,
        sha256,
    })
}

/// The name of a copy begun at `began_ms`.
fn name(db: &Connection, owner: &str, began_ms: i64) -> rusqlite::Result<String> {
    let name = "SELECT ? || strftime('-%Y%m%dT%H%M%SZ.db', ? / 1000, 'unixepoch')";
    db.query_row(name, (owner, began_ms), |row| row.get(0))
}

/// Removes all but the newest `keep` copies of the database of `owner` in `folder`; returns the
/// removed ones.
///
/// # Errors
/// A copy cannot be removed.
pub fn prune(folder: &Path, owner: &str, keep: usize) -> io::Result<Vec<PathBuf>> {
    let mut copies = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if is_copy_of(&name.to_string_lossy(), owner) {
            copies.push(folder.join(name));
        }
    }
    copies.sort();
    copies.truncate(copies.len().saturating_sub(keep));
    for copy in &copies {
        fs::remove_file(copy)?;
        let digest = fs::remove_file(appended(copy, DIGEST));
        digest.or_else(ignore_missing)?;
    }
    Ok(copies)
}

fn is_copy_of(name: &str, owner: &str) -> bool {
    let rest = name.strip_prefix(owner).and_then(|it| it.strip_prefix('-'));
    let time = rest.and_then(|rest| rest.strip_suffix(".db"));
    time.is_some_and(|time| {
        let is_fit = |(place, c): (usize, char)| match place {
            8 => c == 'T',
            15 => c == 'Z',
            _ => c.is_ascii_digit(),
        };
        time.len() == 16 && time.chars().enumerate().all(is_fit)
    })
}

/// Compares `copy` with its digest file; returns whether there is one.
///
/// # Errors
/// They differ ([`Error::Damaged`]), or cannot be read.
pub fn check_digest(copy: &Path) -> Result<bool, Error> {
    has_digest(copy).map_err(Error::of)
}

fn has_digest(copy: &Path) -> anyhow::Result<bool> {
    expect_file(copy)?;
    let beside = appended(copy, DIGEST);
    let text = match fs::read_to_string(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text.with_context(|| format!("read {}", beside.display()))?,
    };
    let expected = text.split_whitespace().next().unwrap_or_default();
    let found = digest(copy, &unwatched())?;
    let (copy, beside) = (copy.display(), beside.display());
    let differs = || {
        format!(
            "{copy} differs from its digest file: its digest is {found}, but {beside} has {expected}"
        )
    };
    ensure!(
        found.eq_ignore_ascii_case(expected),
        Error::Damaged(differs().into())
    );
    Ok(true)
}

/// When the newest backup of the database at `path` was begun, if known.
pub fn newest(path: &Path) -> Option<SystemTime> {
    private::stamped(&appended(path, STAMP)).ok()
}

fn note(path: &Path, when_ms: i64) -> anyhow::Result<()> {
    let stamp = appended(path, STAMP);
    private::stamp(&stamp, when_ms)?;
    target::give_to_owner(&stamp, path)
}

/// The last position up to which two databases have the same events, whatever their epochs. A
/// database whose epoch began with a copy shares that copy's events.
///
/// # Errors
/// A database cannot be read.
pub fn common(one: &Path, other: &Path) -> Result<u64, Error> {
    last_common(one, other).map_err(Error::of)
}

fn last_common(one: &Path, other: &Path) -> anyhow::Result<u64> {
    let (one, other) = (open_copy(one)?, open_to_look(other)?);
    let event = |db: &Connection, position: u64| {
        let event =
            "SELECT subject, key, payload, recorded_at FROM headwater_outbox WHERE position = ?";
        db.query_row(event, [position], |row| {
            let (subject, key, payload): (String, String, Vec<u8>) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok((subject, key, payload, row.get::<_, i64>(3)?))
        })
        .optional()
    };
    let (mut same, mut differs) = (
        0,
        Facts::read(&one)?.head.min(Facts::read(&other)?.head) + 1,
    );
    while differs - same > 1 {
        let middle = same + (differs - same) / 2;
        if event(&one, middle)? == event(&other, middle)? {
            same = middle;
        } else {
            differs = middle;
        }
    }
    Ok(same)
}

/// Checks before opening: opening a pipe would wait for a writer.
fn expect_file(path: &Path) -> anyhow::Result<()> {
    let found = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    ensure!(found.is_file(), "{} is not a file", path.display());
    Ok(())
}

/// Opens a database without changing it, whatever state it is in.
fn open_to_look(path: &Path) -> anyhow::Result<Connection> {
    expect_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)
        .with_context(|| format!("open {}", path.display()))?;
    db.busy_timeout(BUSY)?;
    Ok(db)
}

/// Opens a database for reading while others may use it.
fn open(path: &Path) -> anyhow::Result<Connection> {
    // The last connection to close cleans up the database, which a read-only one cannot.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)
        .and_then(|db| {
            db.busy_timeout(BUSY)?;
            db.execute_batch("PRAGMA query_only = ON")?;
            Ok(db)
        })
        .with_context(|| format!("open {}", path.display()))?;
    Ok(db)
}

/// Opens a copy, which does not change, even on a read-only file system. A copy with a write-ahead
/// log is opened like a database in use.
fn open_copy(path: &Path) -> anyhow::Result<Connection> {
    expect_file(path)?;
    if appended(path, "-wal").exists() {
        return open(path);
    }
    let mut uri = OsString::from("file:");
    for part in path.to_string_lossy().chars() {
        match part {
            '%' | '?' | '#' => uri.push(format!("%{:02x}", u32::from(part))),
            other => uri.push(other.to_string()),
        }
    }
    uri.push("?immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags).with_context(|| format!("open {}", path.display()))
}

/// Checks the whole copy at `path` and returns its facts.
///
/// # Errors
/// It is damaged ([`Error::Damaged`]), or is not the database of a service
/// ([`Error::NotADatabase`]).
pub fn check(path: &Path) -> Result<Facts, Error> {
    let check = || {
        let db = open_copy(path)?;
        expect_whole(&db).with_context(|| format!("check {}", path.display()))?;
        Facts::read(&db).with_context(|| reading(path))
    };
    check().map_err(Error::of)
}

fn reading(path: &Path) -> String {
    format!("read {}", path.display())
}

fn expect_whole(db: &Connection) -> anyhow::Result<()> {
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    let damaged = || Error::Damaged(format!("it is damaged: {found}").into());
    ensure!(found == "ok", damaged());
    Ok(())
}

/// A file that becomes a copy. Otherwise it is removed.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    /// Locked, so that another backup does not mistake it for one left by a crash.
    file: File,
    /// Whether it has become a copy: the file at `path` is then another's.
    is_copy: bool,
}

impl Part {
    /// Waits while another backup makes a copy there.
    fn begin(path: PathBuf, watch: &Watch) -> anyhow::Result<Self> {
        let file = lock(&path, watch).with_context(|| format!("make {}", path.display()))?;
        file.set_len(0)?;
        Ok(Self {
            path,
            file,
            is_copy: false,
        })
    }

    /// Copies one moment of `source` into it, and checks the result.
    fn fill(&self, source: &Connection, watch: &Watch) -> anyhow::Result<Facts> {
        let context = || format!("copy to {}", self.path.display());
        source.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema")?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut copy = Connection::open_with_flags(&self.path, flags)?;
        // It is synced as a whole, or removed.
        copy.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF")?;
        self.copy(source, &mut copy, watch).with_context(context)?;
        drop(copy);
        source.execute_batch("ROLLBACK")?;
        let copy = Connection::open_with_flags(&self.path, flags)?;
        // One file, which can be read on a read-only file system.
        let mode = "PRAGMA journal_mode = DELETE";
        copy.query_row(mode, [], |_| Ok(())).with_context(context)?;
        let checking = Arc::clone(watch);
        let is_cancelled = move || checking(Progress::Checking).is_break();
        copy.progress_handler(CHECK_STEPS, Some(is_cancelled))?;
        expect_whole(&copy).with_context(context)?;
        Facts::read(&copy).with_context(context)
    }

    /// Copies all pages of `source`. Fails before the services on this disk can no longer write.
    fn copy(&self, source: &Connection, to: &mut Connection, watch: &Watch) -> anyhow::Result<()> {
        let number = |pragma| source.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
        let (page, pages) = (number("page_size")?, number("page_count")?);
        let total = page * pages;
        let mut copied = 0;
        let run = Backup::new(source, to)?;
        loop {
            report(watch, Progress::Copying { copied, total })?;
            room::expect(&self.path, total - copied)?;
            match run.step(PAGES)? {
                StepResult::Done => return Ok(()),
                StepResult::More => {
                    let left = u64::try_from(run.progress().remaining).unwrap_or_default();
                    copied = total.saturating_sub(page * left);
                }
                _ => thread::sleep(LOCK_PAUSE),
            }
        }
    }

    /// Syncs it and renames it to `path`; returns its size.
    fn end(mut self, path: &Path) -> anyhow::Result<u64> {
        let context = || format!("put the copy at {}", path.display());
        self.file.sync_all().with_context(context)?;
        fs::rename(&self.path, path).with_context(context)?;
        self.is_copy = true;
        sync_folder(path).with_context(context)?;
        Ok(self.file.metadata()?.len())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_copy {
            return;
        }
        for behind in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(appended(&self.path, behind));
        }
    }
}

/// Creates or takes the file at `path`, and locks it.
fn lock(path: &Path, watch: &Watch) -> anyhow::Result<File> {
    loop {
        let options = &mut private::options();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::WouldBlock => report(watch, Progress::Waiting)?,
                TryLockError::Error(error) => return Err(error.into()),
            }
            thread::sleep(LOCK_PAUSE);
        }
        let ours = file.metadata()?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            // While we waited, it became a copy or was removed.
            _ => {}
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn digest(path: &Path, watch: &Watch) -> anyhow::Result<String> {
    let context = || format!("read {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        report(watch, Progress::Checking)?;
        let read = file.read(&mut buffer).with_context(context)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let digest = bytes::Bytes::copy_from_slice(&hash.finalize());
    Ok(format!("{digest:x}"))
}

fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        let mut file = private::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}
