//! Generations: which file is the database, the plain file or the target of a link.
//!
//! ```text
//! purchases.db                        a plain file, until the first rebuild
//! purchases.db -> purchases.db.3      a link, after a rebuild
//! purchases.db.4                      being rebuilt
//! purchases.db.damaged-17638…         damaged, moved aside
//! orders.db.orders-catalogue-rebuild  one projection of a larger database, being rebuilt
//! ```
//!
//! Deleting `purchases.db` asks for a rebuild from the first event: at the next start, the
//! numbered files are deleted, too.
//!
//! A link is replaced by one `rename`, so at every moment a start finds one complete store: the
//! old one or the new one. SQLite names the WAL after the target of the link, so a new store never
//! uses the WAL of an old one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::kind::Kind;
use crate::private;

/// The suffixes of the files of an SQLite database.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

/// The purpose of a store next to the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// It replaces the live one. After a crash, the next attempt continues with it.
    Successor,
    /// It is compared with the live one and deleted.
    Scratch,
}

/// The file that `path` links to; `path` itself if it is not a link.
pub(crate) fn current(path: &Path) -> PathBuf {
    match fs::read_link(path) {
        Ok(target) => folder(path).join(target),
        Err(_) => path.to_owned(),
    }
}

/// The file of the next rebuild: that of an interrupted rebuild, or a new one.
pub(crate) fn next(path: &Path) -> io::Result<PathBuf> {
    let current = number(path, &current(path));
    let unfinished = numbered(path)?.into_iter().rfind(|n| *n > current);
    Ok(with(path, unfinished.unwrap_or(current + 1)))
}

/// The file of a store that is only built to compare it with the live one.
pub(crate) fn scratch(path: &Path) -> PathBuf {
    appended(path, ".verify")
}

/// The lock file of the database at `path`, the same for each of its names: links are followed,
/// except the link of a read store, which leads to another file after each rebuild.
pub(crate) fn lock_file(path: &Path, kind: Kind) -> io::Result<PathBuf> {
    let file = match kind {
        Kind::Own | Kind::Personal => fs::canonicalize(path).unwrap_or_else(|_| current(path)),
        Kind::ReadStore => path.to_owned(),
    };
    let name = file.file_name().unwrap_or_default();
    Ok(appended(
        &fs::canonicalize(folder(&file))?.join(name),
        ".lock",
    ))
}

/// The write-ahead log of `file`, or its index, if it exists although `file` is missing. SQLite
/// removes both when it closes a database that is still where it was opened.
pub(crate) fn orphaned_log(file: &Path) -> Option<PathBuf> {
    let logs = PARTS[1..].iter().map(|part| appended(file, part));
    logs.filter(|_| !file.exists()).find(|log| log.exists())
}

/// The file in which the tables of `projection` are rebuilt, next to a database that holds more:
/// `orders.db.orders-catalogue-rebuild`.
pub(crate) fn beside(path: &Path, projection: &str, beside: Beside) -> PathBuf {
    let purpose = match beside {
        Beside::Successor => "rebuild",
        Beside::Scratch => "verify",
    };
    appended(path, &format!(".{projection}-{purpose}"))
}

/// Whether a rebuild was interrupted.
pub(crate) fn is_unfinished(path: &Path) -> io::Result<bool> {
    let current = number(path, &current(path));
    Ok(numbered(path)?.into_iter().any(|n| n > current))
}

/// Links `path` to `file`, in one atomic step that survives a power cut.
pub(crate) fn switch(path: &Path, file: &Path) -> io::Result<()> {
    let target = file.file_name().expect("a database has a name");
    let link = appended(path, ".link");
    // A crash may have left one behind.
    let _ = fs::remove_file(&link);
    sync_folder(path)?;
    symlink(target, &link)?;
    fs::rename(&link, path)?;
    sync_folder(path)
}

/// Removes replaced stores that were left behind.
pub(crate) fn sweep(path: &Path) -> io::Result<()> {
    let current_file = current(path);
    let current = number(path, &current_file);
    for old in numbered(path)?.into_iter().filter(|n| *n < current) {
        remove(&with(path, old))?;
    }
    if current_file != path {
        // The plain file that the first link replaced.
        for part in &PARTS[1..] {
            remove_if_there(&appended(path, part))?;
        }
    }
    Ok(())
}

/// Removes the numbered stores of `path` if `path` itself was deleted. Otherwise its former target
/// would be taken for an interrupted rebuild, and come back.
pub(crate) fn sweep_deleted(path: &Path) -> io::Result<()> {
    let is_deleted = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => folder(path).exists(),
        found => found.map(|_| false)?,
    };
    if is_deleted {
        for left in numbered(path)? {
            remove(&with(path, left))?;
        }
    }
    Ok(())
}

/// Removes the files of a replaced store of `path`. The plain file itself is already gone: a link
/// took its name.
pub(crate) fn remove_replaced(path: &Path, file: &Path) -> io::Result<()> {
    let own = usize::from(file == path);
    PARTS[own..]
        .iter()
        .try_for_each(|part| remove_if_there(&appended(file, part)))
}

/// Removes a database's files.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    PARTS
        .iter()
        .try_for_each(|part| remove_if_there(&appended(file, part)))
}

/// Removes other users' access to a database's files.
pub(crate) fn narrow(file: &Path) {
    for part in PARTS {
        private::narrow(&appended(file, part));
    }
}

/// Moves the files of a damaged database aside for the operator; returns their new path.
pub(crate) fn move_aside(path: &Path, file: &Path, now_ms: i64) -> io::Result<PathBuf> {
    let aside = appended(path, &format!(".damaged-{now_ms}"));
    for part in PARTS {
        match fs::rename(appended(file, part), appended(&aside, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    if file != path {
        remove_if_there(path)?;
    }
    sync_folder(path)?;
    Ok(aside)
}

/// Adds a second name to the file that `path` links to, so that it is kept; returns that name.
pub(crate) fn keep_aside(path: &Path, now_ms: i64) -> io::Result<PathBuf> {
    let aside = appended(path, &format!(".damaged-{now_ms}"));
    fs::hard_link(current(path), &aside)?;
    Ok(aside)
}

/// The size of the WAL of `file`, in bytes.
pub(crate) fn wal_bytes(file: &Path) -> u64 {
    fs::metadata(appended(file, "-wal")).map_or(0, |wal| wal.len())
}

/// Truncates the WAL of `file` to `bytes`.
pub(crate) fn cut_wal(file: &Path, bytes: u64) -> io::Result<()> {
    if wal_bytes(file) <= bytes {
        return Ok(());
    }
    let wal = OpenOptions::new()
        .write(true)
        .open(appended(file, "-wal"))?;
    wal.set_len(bytes)
}

/// The numbers of all numbered stores of `path`, in order.
fn numbered(path: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder(path))? {
        match number(path, Path::new(&entry?.file_name())) {
            0 => {}
            number => numbers.push(number),
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// The number of `file`; 0 if it has none, such as the plain file.
fn number(path: &Path, file: &Path) -> u64 {
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix(&*own)
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

fn with(path: &Path, number: u64) -> PathBuf {
    appended(path, &format!(".{number}"))
}

/// `path` with `end` appended to its name.
pub fn appended(path: &Path, end: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}

fn remove_if_there(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(file: &Path) {
        fs::write(file, "").unwrap();
    }

    #[test]
    fn a_plain_file_is_itself_and_the_next_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        touch(&path);
        assert_eq!(current(&path), path);
        assert!(!is_unfinished(&path).unwrap());
        assert_eq!(next(&path).unwrap(), folder.path().join("a.db.1"));
    }

    #[test]
    fn a_switch_replaces_the_plain_file_and_later_the_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        touch(&path);
        touch(&folder.path().join("a.db-wal"));
        for number in 1..=3 {
            let file = next(&path).unwrap();
            assert_eq!(file, folder.path().join(format!("a.db.{number}")));
            touch(&file);
            assert!(is_unfinished(&path).unwrap());
            switch(&path, &file).unwrap();
            assert_eq!(current(&path), file);
            assert!(!is_unfinished(&path).unwrap());
        }
        sweep(&path).unwrap();
        let mut left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["a.db", "a.db.3"]);
    }

    #[test]
    fn a_deleted_link_takes_its_stores_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let file = folder.path().join("a.db.1");
        touch(&file);
        touch(&folder.path().join("a.db.1-wal"));
        touch(&folder.path().join("a.db.bak"));
        switch(&path, &file).unwrap();
        sweep_deleted(&path).unwrap();
        assert!(file.exists(), "the link leads to it");
        fs::remove_file(&path).unwrap();
        sweep_deleted(&path).unwrap();
        let left: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["a.db.bak"]);
        sweep_deleted(&folder.path().join("no folder").join("a.db")).unwrap();
    }

    #[test]
    fn all_names_of_a_database_have_one_lock_file() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| fs::canonicalize(folder.path()).unwrap().join(name);
        fs::create_dir(at("data")).unwrap();
        symlink(at("data"), at("other")).unwrap();
        symlink("data/a.db", at("a.db")).unwrap();
        let names = ["a.db", "data/a.db", "other/a.db"];
        let lock_files = |kind| names.map(|name| lock_file(&at(name), kind).unwrap());
        let lock = at("data/a.db.lock");
        assert_eq!(
            lock_files(Kind::Own),
            [(); 3].map(|()| lock.clone()),
            "before the file exists"
        );
        touch(&at("data/a.db"));
        assert_eq!(lock_files(Kind::Own), [(); 3].map(|()| lock.clone()));

        switch(&at("data/a.db"), &at("data/a.db.1")).unwrap();
        let [_, direct, by_folder] = lock_files(Kind::ReadStore);
        assert_eq!(
            (direct, by_folder),
            (lock.clone(), lock),
            "also after a rebuild"
        );
    }

    #[test]
    fn other_files_in_the_folder_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        for name in [
            "a.db",
            "a.db.bak",
            "a.db.2026-01-01",
            "b.db.1",
            "a.db.damaged-5",
            "a.db.2-wal",
        ] {
            touch(&folder.path().join(name));
        }
        assert!(!is_unfinished(&path).unwrap());
        sweep(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 6);
    }

    #[test]
    fn a_damaged_file_is_moved_aside_with_its_wal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let file = folder.path().join("a.db.1");
        touch(&file);
        touch(&folder.path().join("a.db.1-wal"));
        switch(&path, &file).unwrap();
        let aside = move_aside(&path, &file, 5).unwrap();
        assert_eq!(aside, folder.path().join("a.db.damaged-5"));
        assert!(aside.exists() && folder.path().join("a.db.damaged-5-wal").exists());
        assert_eq!(current(&path), path, "the link is gone");
    }
}
