//! Restores a copy in place of a database that no process has open.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use headwater_store::generation::appended;
use headwater_store::outbox::INHERITED;
use headwater_store::{Kind, Lock};
use headwater_telemetry::Clock;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::error::Error;
use crate::{Facts, Part, ignore_missing, open_copy, sync_folder, unwatched};

/// The path of a database, which no process can open while this lives.
#[derive(Debug)]
pub struct RestoreTarget {
    path: PathBuf,
    _lock: Lock,
}

/// The result of a restore.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Restored {
    /// The facts of the restored database.
    pub facts: Facts,
    /// Where the previous database is now, if there was one.
    pub aside: Option<PathBuf>,
}

impl RestoreTarget {
    /// Keeps all processes from opening the database at `path`, whether or not it exists.
    ///
    /// # Errors
    /// [`Error::Store`]: a process has it open; the text names it.
    pub fn take(path: &Path) -> Result<Self, Error> {
        // A link stays, and the copy goes where it points.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let lock = Lock::take(&path, Kind::Own)?;
        give_to_owner(&appended(&path, ".lock"), &path).map_err(Error::of)?;
        Ok(Self { path, _lock: lock })
    }

    /// Restores `copy`, with the owner and mode of the database that it replaces, which is kept
    /// aside. With `is_new_epoch`, the copy begins a new epoch. At every moment a start finds
    /// either the previous database, with its complete write-ahead log, or the copy.
    ///
    /// # Errors
    /// The copy cannot be made, files cannot be moved, or another program reads the previous
    /// database ([`Error::InUse`]): it stays.
    pub fn put(&self, copy: &Path, is_new_epoch: bool, clock: &Clock) -> Result<Restored, Error> {
        self.replace(copy, is_new_epoch, clock).map_err(Error::of)
    }

    fn replace(&self, copy: &Path, is_new_epoch: bool, clock: &Clock) -> anyhow::Result<Restored> {
        let part = Part::begin(appended(&self.path, ".restoring"), &unwatched())?;
        let mut facts = part.fill(&open_copy(copy)?, &unwatched())?;
        if is_new_epoch {
            facts.epoch = begin_new_epoch(&part.path)?;
        }
        give_to_owner(&part.path, &self.path)?;
        let aside = self
            .move_aside(clock.now_ms())
            .context("move the previous database aside")?;
        part.end(&self.path)?;
        Ok(Restored { facts, aside })
    }

    /// Gives the file a second name. Empties its write-ahead log, which must not meet another
    /// database.
    fn move_aside(&self, now_ms: i64) -> anyhow::Result<Option<PathBuf>> {
        let aside = appended(&self.path, &format!(".replaced-{now_ms}"));
        self.empty_log().context("empty its write-ahead log")?;
        // The `-shm` file stays: SQLite rebuilds it, and while it is there no start takes a missing
        // database for a new one.
        let log = appended(&aside, "-wal");
        fs::rename(appended(&self.path, "-wal"), &log)
            .or_else(ignore_missing)
            .with_context(|| format!("to {}", log.display()))?;
        let context = || format!("to {}", aside.display());
        let is_there = match fs::hard_link(&self.path, &aside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            linked => linked.map(|()| true).with_context(context)?,
        };
        sync_folder(&self.path).with_context(context)?;
        Ok(is_there.then_some(aside))
    }

    /// Writes the write-ahead log into the database. Without its log, the database lacks its newest
    /// commits, and a start between two steps would continue from that. No start continues from a
    /// file that is not a database, or from a log without a database.
    fn empty_log(&self) -> anyhow::Result<()> {
        let is_empty = |file: &Path| fs::metadata(file).map_or(0, |file| file.len()) == 0;
        if is_empty(&self.path) || is_empty(&appended(&self.path, "-wal")) {
            return Ok(());
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags)?;
        let emptied = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
        match emptied {
            Ok(0) => Ok(()),
            Ok(_) => {
                let why = "another program reads the database: end that program first";
                bail!(Error::InUse(why.into()))
            }
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(()),
                _ => Err(error.into()),
            },
        }
    }
}

/// Gives the database at `path` a new epoch for the events that it publishes from now on. Records
/// which events it has of the former one.
fn begin_new_epoch(path: &Path) -> anyhow::Result<String> {
    let db = Connection::open(path)?;
    let record = "INSERT INTO headwater_inherited (former, last)
         SELECT epoch, (SELECT coalesce(max(position), 0) FROM headwater_outbox)
         FROM headwater_database";
    let recorded = db.execute_batch(&format!("BEGIN; {INHERITED}; {record}"));
    recorded.context("record the former epoch")?;
    let sql = "UPDATE headwater_database SET epoch = lower(hex(randomblob(16))) RETURNING epoch";
    let epoch = db.query_row(sql, [], |row| row.get(0));
    let epoch = epoch.context("begin a new epoch")?;
    db.execute_batch("COMMIT").context("begin a new epoch")?;
    Ok(epoch)
}

/// Gives `file` the owner and mode of the database at `path`, or the owner of its folder.
pub(super) fn give_to_owner(file: &Path, path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let (like, mode) = match fs::metadata(path) {
        Ok(replaced) => (replaced.clone(), Some(replaced.permissions())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (fs::metadata(folder.unwrap_or(Path::new(".")))?, None)
        }
        Err(error) => bail!("look at {}: {error}", path.display()),
    };
    let is = fs::metadata(file)?;
    let context = || format!("give {} to the user {}", file.display(), like.uid());
    if (is.uid(), is.gid()) != (like.uid(), like.gid()) {
        chown(file, Some(like.uid()), Some(like.gid())).with_context(context)?;
    }
    let mode = mode.map_or(0o600, |mode| mode.mode() & 0o7777);
    fs::set_permissions(file, Permissions::from_mode(mode)).with_context(context)
}
