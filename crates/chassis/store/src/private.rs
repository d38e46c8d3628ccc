//! Files and folders that only the user of the process may access, whatever the umask.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The mode of a new file.
const FILE: u32 = 0o600;

/// The mode of a new folder.
const FOLDER: u32 = 0o700;

/// The mode bits of the group and of other users.
const OTHERS: u32 = 0o077;

/// Creates the folder and its missing parents. The mode of an existing folder stays: other users
/// may need it.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER)
        .create(folder)
}

/// Options that make a new file private.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE);
    options
}

/// Creates an empty file if there is none. An existing file is not opened: closing it would release
/// SQLite's locks on it.
pub(crate) fn make_file(file: &Path) -> io::Result<()> {
    match options().write(true).create_new(true).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Records `when_ms`, in milliseconds since 1970, as the modification time of `file`. Creates an
/// empty file if there is none.
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

/// The time that [`stamp`] recorded last.
pub fn stamped(file: &Path) -> io::Result<SystemTime> {
    fs::metadata(file)?.modified()
}

/// Removes the access of other users to `file`, if it exists and they have any.
pub(crate) fn narrow(file: &Path) {
    let Ok(mode) = fs::metadata(file).map(|found| found.permissions().mode()) else {
        return;
    };
    if mode & OTHERS == 0 {
        return;
    }
    let file_name = file.display();
    match fs::set_permissions(file, Permissions::from_mode(mode & !OTHERS)) {
        Ok(()) => tracing::info!(file = %file_name, "removed other users' access to the file"),
        Err(error) => tracing::warn!(
            file = %file_name, %error,
            "other users can access the file; remove their access with chmod go="
        ),
    }
}
