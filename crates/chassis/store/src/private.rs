//! Files and folders that nobody but the user of the process may read, whatever the umask is.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The mode of a file that is made.
const FILE: u32 = 0o600;

/// The mode of a folder that is made.
const FOLDER: u32 = 0o700;

/// Everything that a mode gives to others.
const OTHERS: u32 = 0o077;

/// Makes the folder, and those above it, where they are not there. A folder that is there stays as
/// it is: it may be for others, too.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER)
        .create(folder)
}

/// `options` for a file that is private where they make it.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE);
    options
}

/// Makes an empty file where there is none. What is there is not opened: closing it would release
/// SQLite's locks on it.
pub(crate) fn make_file(file: &Path) -> io::Result<()> {
    match options().write(true).create_new(true).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Notes in the modification time of an empty file, made where there is none, that something was
/// done at `when_ms`, in milliseconds since 1970.
pub fn stamp(file: &Path, when_ms: i64) -> io::Result<()> {
    let mut options = options();
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(file)?;
    let since = Duration::from_millis(when_ms.try_into().unwrap_or_default());
    file.set_modified(UNIX_EPOCH + since)
}

/// When it was done last, by its [`stamp`].
pub fn stamped(file: &Path) -> io::Result<SystemTime> {
    fs::metadata(file)?.modified()
}

/// Takes the access of others to `file` away, if it is there and they have any.
pub(crate) fn narrow(file: &Path) {
    let Ok(mode) = fs::metadata(file).map(|found| found.permissions().mode()) else {
        return;
    };
    if mode & OTHERS == 0 {
        return;
    }
    let file_name = file.display();
    match fs::set_permissions(file, Permissions::from_mode(mode & !OTHERS)) {
        Ok(()) => tracing::info!(file = %file_name, "other users can no longer access the file"),
        Err(error) => tracing::warn!(
            file = %file_name, %error,
            "other users can access the file; take their access away with chmod go="
        ),
    }
}
