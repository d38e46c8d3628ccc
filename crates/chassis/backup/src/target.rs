//! Putting a copy in the place of a database that nobody has open.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use headwater_store::generation::appended;
use headwater_store::{Kind, Lock};
use headwater_telemetry::Clock;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{Facts, Part, ignore_missing, open_copy, sync_folder};

/// The place of a database, which no process may open as long as this lives.
#[derive(Debug)]
pub struct RestoreTarget {
    path: PathBuf,
    _lock: Lock,
}

/// What was put in place.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What it says of itself.
    pub facts: Facts,
    /// Where what was there before is now, if anything was.
    pub aside: Option<PathBuf>,
}

impl RestoreTarget {
    /// Keeps everybody away from the database at `path`, made or not.
    ///
    /// # Errors
    /// Somebody has it open; which process is in the text.
    pub fn take(path: &Path) -> anyhow::Result<Self> {
        // A link stays, and leads to what is put there.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let lock = Lock::take(&path, Kind::Own)?;
        give_to_owner(&appended(&path, ".lock"), &path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Puts `copy` there, with the owner and the mode of what it replaces, which is kept aside. With
    /// `is_new_life` it gets another epoch. At every moment a start finds what was there, with all
    /// that is in its write-ahead log, or the copy.
    ///
    /// # Errors
    /// It cannot be copied, or the files not be moved: what was there is there.
    pub fn put(&self, copy: &Path, is_new_life: bool, clock: &Clock) -> anyhow::Result<Restored> {
        let part = Part::begin(appended(&self.path, ".restoring"))?;
        let mut facts = part.fill(&open_copy(copy)?)?;
        if is_new_life {
            facts.epoch = begin_new_life(&part.path)?;
        }
        give_to_owner(&part.path, &self.path)?;
        let aside = self
            .move_aside(clock.now_ms())
            .context("move aside what was there")?;
        part.end(&self.path)?;
        Ok(Restored { facts, aside })
    }

    /// Gives the file a second name, and leaves nothing in its write-ahead log, which must not meet
    /// another database.
    fn move_aside(&self, now_ms: i64) -> anyhow::Result<Option<PathBuf>> {
        let aside = appended(&self.path, &format!(".replaced-{now_ms}"));
        self.empty_log().context("empty its write-ahead log")?;
        // The `-shm` file stays: SQLite rebuilds it, and no start takes a missing database for a
        // new one while it is there.
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

    /// Writes what is in the write-ahead log into the database: one without its log lacks its
    /// newest commits, and a start between two steps would go on with that. No start goes on with
    /// one that is no database, or has none beside its log.
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
            Ok(_) => bail!("another program reads the database: end that"),
            Err(error) => match error.sqlite_error_code() {
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => Ok(()),
                _ => Err(error.into()),
            },
        }
    }
}

/// Gives the copy at `path` another epoch: what it publishes from now on is of another life.
fn begin_new_life(path: &Path) -> anyhow::Result<String> {
    let db = Connection::open(path)?;
    let sql = "UPDATE headwater_database SET epoch = lower(hex(randomblob(16))) RETURNING epoch";
    let epoch = db.query_row(sql, [], |row| row.get(0));
    epoch.context("begin a new life")
}

/// Gives `file` the owner of the database at `path`, or of its folder, and its mode.
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
