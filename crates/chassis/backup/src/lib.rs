//! Copies of a service's database: made while it runs, looked at, put back while it is stopped.
//!
//! A copy is made by SQLite's backup within one read transaction: of one moment, what is in the
//! write-ahead log included. The writer is not held up; its log grows by what is written meanwhile.
//! (`VACUUM INTO` keeps its read transaction open for as long as it writes, and renumbers rows.)
//!
//! The key file is never part of it: whoever has both can read the personal data.

mod target;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use headwater_store::generation::appended;
use headwater_store::{personal, private};
use headwater_telemetry::Clock;
use rusqlite::backup::Backup;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use sha2::{Digest as _, Sha256};

pub use crate::target::{RestoreTarget, Restored};

/// How long a database may be locked by others.
const BUSY: Duration = Duration::from_secs(5);

/// Pages of a database that are copied at a time.
const PAGES: i32 = 1024;

/// Behind the name of a copy: the file with its digest, as `sha256sum` writes it.
const DIGEST: &str = ".sha256";

/// Behind the name of a database: the file whose time is that of its newest backup. Never rename.
const STAMP: &str = ".backed-up";

/// Whose database a file is, and how far it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The service.
    pub owner: String,
    /// The life of the database.
    pub epoch: String,
    /// The newest position in its outbox; 0 without any.
    pub head: u64,
    /// What has shaped its tables.
    pub migrations: Vec<String>,
    /// Whether the service is a projection itself, and not a source that keeps one.
    pub is_read_store: bool,
    /// The id of the key file that belongs to it, and how many keys that has at least.
    keys: Option<(Vec<u8>, u64)>,
}

impl Facts {
    /// What the database at `path` says of itself, which may be in use.
    ///
    /// # Errors
    /// It cannot be read, or is no database of a service.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        let db = open_to_look(path)?;
        Self::read(&db).with_context(|| format!("read {}", path.display()))
    }

    fn read(db: &Connection) -> anyhow::Result<Self> {
        let is_ours =
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'headwater_database')";
        let is_ours: bool = db.query_row(is_ours, [], |row| row.get(0))?;
        ensure!(is_ours, "it is no database of a service");
        let (owner, epoch): (String, String) = db
            .query_row("SELECT owner, epoch FROM headwater_database", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .context("look for whose database it is")?;
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
            // Those of an early version have no such column, and no key file.
            keys: db
                .query_row(keys, [], |row| Ok((row.get(0)?, row.get(1)?)))
                .ok(),
        })
    }

    /// Whether nothing in it is lost with it: all that it has is folded from others' events.
    pub fn is_copy(&self) -> bool {
        self.head == 0 && self.is_read_store
    }

    /// Whether the key file beside `database`, where this is to be put, can open it.
    ///
    /// # Errors
    /// It is missing, damaged, of another database, or too old.
    pub fn check_keys(&self, database: &Path) -> anyhow::Result<()> {
        let Some((id, slots)) = &self.keys else {
            return Ok(());
        };
        personal::check_key_file(&database.with_extension("keys"), &self.owner, id, *slots)
    }
}

/// A copy that is whole, on the disk, and was looked at.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Where it is.
    pub file: PathBuf,
    /// What it says of itself.
    pub facts: Facts,
    /// Its size.
    pub bytes: u64,
    /// Its digest, in hexadecimal.
    pub sha256: String,
}

/// Copies the database at `path`, which may be in use, into `folder`, as
/// `orders-20261130T041200Z.db` with its digest beside it.
///
/// # Errors
/// It cannot be read or written, or is damaged: nothing that looks like a copy is left.
pub fn make(path: &Path, folder: &Path, clock: &Clock) -> anyhow::Result<Copy> {
    private::make_folder(folder).with_context(|| format!("make {}", folder.display()))?;
    let source = open(path)?;
    let facts = Facts::read(&source)?;
    let part = Part::begin(folder.join(format!(".{}.part", facts.owner)))?;
    let mut began_ms = clock.now_ms();
    let mut name = name(&source, &facts.owner, began_ms)?;
    if folder.join(&name).exists() {
        // Names tell seconds apart, and that one is a copy that was reported.
        thread::sleep(Duration::from_secs(1));
        began_ms = clock.now_ms();
        name = self::name(&source, &facts.owner, began_ms)?;
    }
    let facts = part.fill(&source)?;
    drop(source);
    let sha256 = digest(&part.path)?;
    let beside = folder.join(format!("{name}{DIGEST}"));
    write_private(&beside, &format!("{sha256}  {name}\n"))?;
    let file = folder.join(name);
    let bytes = part.end(&file)?;
    note(path, began_ms).with_context(|| format!("note the backup beside {}", path.display()))?;
    Ok(Copy {
        file,
        facts,
        bytes,
        sha256,
    })
}

/// What a copy is called that was begun at `began_ms`.
fn name(db: &Connection, owner: &str, began_ms: i64) -> rusqlite::Result<String> {
    let name = "SELECT ? || strftime('-%Y%m%dT%H%M%SZ.db', ? / 1000, 'unixepoch')";
    db.query_row(name, (owner, began_ms), |row| row.get(0))
}

/// Removes all but the newest `keep` copies of the database of `owner` in `folder`; gives which.
///
/// # Errors
/// One cannot be removed.
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

/// Compares `copy` with the digest beside it; gives whether there is one.
///
/// # Errors
/// They differ, or cannot be read.
pub fn check_digest(copy: &Path) -> anyhow::Result<bool> {
    expect_file(copy)?;
    let beside = appended(copy, DIGEST);
    let text = match fs::read_to_string(&beside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text.with_context(|| format!("read {}", beside.display()))?,
    };
    let expected = text.split_whitespace().next().unwrap_or_default();
    let found = digest(copy)?;
    ensure!(
        found.eq_ignore_ascii_case(expected),
        "{} is not what was written: its digest is {found}, and {} says {expected}",
        copy.display(),
        beside.display()
    );
    Ok(true)
}

/// When the newest backup of the database at `path` was begun; none where none was noted.
pub fn newest(path: &Path) -> Option<SystemTime> {
    private::stamped(&appended(path, STAMP)).ok()
}

fn note(path: &Path, when_ms: i64) -> anyhow::Result<()> {
    let stamp = appended(path, STAMP);
    private::stamp(&stamp, when_ms)?;
    target::give_to_owner(&stamp, path)
}

/// How far two databases have the same events, whatever their epochs are: one whose life began with
/// a copy has that copy's up to there.
///
/// # Errors
/// One cannot be read.
pub fn common(one: &Path, other: &Path) -> anyhow::Result<u64> {
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

/// What is no file may not even be opened: a pipe waits for a writer.
fn expect_file(path: &Path) -> anyhow::Result<()> {
    let found = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    ensure!(found.is_file(), "{} is no file", path.display());
    Ok(())
}

/// Opens a database only to look at it: that leaves it as it is, whatever state it is in.
fn open_to_look(path: &Path) -> anyhow::Result<Connection> {
    expect_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)
        .with_context(|| format!("open {}", path.display()))?;
    db.busy_timeout(BUSY)?;
    Ok(db)
}

/// Opens a database to read it, whoever else uses it.
fn open(path: &Path) -> anyhow::Result<Connection> {
    // The last to close a database cleans up behind it, which one that may only read cannot.
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

/// Opens a copy, which nobody changes, also where nothing may be written. One with a write-ahead
/// log is opened as a database in use is.
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

/// What the copy at `path` says of itself, once it was looked at as a whole.
///
/// # Errors
/// It is damaged, or no database of a service.
pub fn check(path: &Path) -> anyhow::Result<Facts> {
    let db = open_copy(path)?;
    expect_whole(&db).with_context(|| format!("check {}", path.display()))?;
    Facts::read(&db).with_context(|| format!("read {}", path.display()))
}

fn expect_whole(db: &Connection) -> anyhow::Result<()> {
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    ensure!(found == "ok", "it is damaged: {found}");
    Ok(())
}

/// A file that becomes a copy. Removed unless it does.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    /// Locked, so that no other backup takes it for one that a crash left behind.
    file: File,
    /// Whether it has become one: what is at `path` now is somebody else's.
    is_copy: bool,
}

impl Part {
    /// Waits for whoever is making a copy there.
    fn begin(path: PathBuf) -> anyhow::Result<Self> {
        let file = lock(&path).with_context(|| format!("make {}", path.display()))?;
        file.set_len(0)?;
        Ok(Self {
            path,
            file,
            is_copy: false,
        })
    }

    /// Copies `source` into it as it is at one moment, and looks at what came out.
    fn fill(&self, source: &Connection) -> anyhow::Result<Facts> {
        let context = || format!("copy to {}", self.path.display());
        source.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema")?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut copy = Connection::open_with_flags(&self.path, flags)?;
        // It is synced as a whole, or removed.
        copy.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = OFF")?;
        Backup::new(source, &mut copy)
            .and_then(|run| run.run_to_completion(PAGES, Duration::ZERO, None))
            .with_context(context)?;
        drop(copy);
        source.execute_batch("ROLLBACK")?;
        let copy = Connection::open_with_flags(&self.path, flags)?;
        // One file, that can be read where nothing can be written.
        let mode = "PRAGMA journal_mode = DELETE";
        copy.query_row(mode, [], |_| Ok(())).with_context(context)?;
        expect_whole(&copy).with_context(context)?;
        Facts::read(&copy).with_context(context)
    }

    /// Puts it on the disk, and at `path`; gives its size.
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

/// Makes the file at `path`, or takes the one that is there, for us alone.
fn lock(path: &Path) -> io::Result<File> {
    loop {
        let options = &mut private::options();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        file.lock()?;
        let ours = file.metadata()?;
        match fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(file),
            // While we waited it has become a copy, or was removed.
            _ => {}
        }
    }
}

/// The SHA-256 of a file, in hexadecimal.
fn digest(path: &Path) -> anyhow::Result<String> {
    let context = || format!("read {}", path.display());
    let mut file = File::open(path).with_context(context)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
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
