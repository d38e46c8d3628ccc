//! One process per database file.
//!
//! The lock is on a separate file next to the database: SQLite's locks on the database are lost as
//! soon as anything else in the process opens and closes that file. The kernel releases the lock
//! when the process ends for any reason, so a leftover lock file locks nothing.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};

use crate::error::Error;
use crate::identity::Identity;
use crate::kind::Kind;
use crate::{generation, private, reason};

/// This process's exclusive right to open a database, until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Lock {
    file: PathBuf,
    locked: Arc<Mutex<Locked>>,
}

#[derive(Debug)]
struct Locked {
    _file: File,
    identity: Identity,
}

impl Lock {
    /// Takes the lock of the database at `path`, whose folder must exist.
    ///
    /// # Errors
    /// [`Error::Locked`]: another process has it; or the lock file cannot be created.
    pub fn take(path: &Path, kind: Kind) -> Result<Self, Error> {
        let file = generation::lock_file(path, kind)
            .with_context(|| format!("inspect {}", path.display()))
            .map_err(|error| reason::of(error, path))?;
        let locked = Arc::new(Mutex::new(Locked::take(&file)?));
        Ok(Self { file, locked })
    }

    /// Takes the lock again if its file was removed: since then it has excluded no process.
    ///
    /// # Errors
    /// [`Error::Locked`]: another process has taken the lock meanwhile.
    pub fn keep(&self) -> Result<(), Error> {
        let mut locked = self.locked.lock().unwrap_or_else(PoisonError::into_inner);
        if locked.identity.moved().is_some() {
            *locked = Locked::take(&self.file)?;
        }
        Ok(())
    }
}

impl Locked {
    fn take(path: &Path) -> Result<Self, Error> {
        Self::try_take(path)
            .with_context(|| format!("lock {}", path.display()))
            .map_err(|error| reason::of(error, path))
    }

    fn try_take(path: &Path) -> anyhow::Result<Self> {
        let mut file = private::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)?;
        private::narrow(path);
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let why = format!(
                    "another process (pid {holder}) has this database open, and only one may; stop \
                     that process, or use another file with --database"
                );
                bail!(Error::Locked(why.into()));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        // Only for messages, and the disk may be full.
        let _ = writeln!(file, "{}", std::process::id());
        let identity = Identity::of(path)?;
        Ok(Self {
            _file: file,
            identity,
        })
    }
}
