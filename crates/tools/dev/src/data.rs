//! The data folder: it belongs to one `cargo dev` at a time.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::service::Service;

/// Marks a folder as ours, and is the lock on it. Never rename.
const MARKER: &str = "headwater-dev";

/// An open data folder.
#[derive(Debug)]
pub(crate) struct Data {
    folder: PathBuf,
    _lock: File,
}

impl Data {
    /// Opens and locks `folder`, which must be ours, empty or missing.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let folder = std::path::absolute(folder).context("find the data folder")?;
        let shown = folder.display();
        let failed = || format!("open the data folder {shown}");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(failed)?;
        let marker = folder.join(MARKER);
        let mut entries = fs::read_dir(&folder).with_context(failed)?;
        if entries.next().is_some() && !marker.is_file() {
            bail!(
                "{shown} contains files that `cargo dev` has not created; choose another folder with --data"
            );
        }
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&marker)
            .with_context(failed)?;
        // From now on the folder is ours.
        narrow(&folder).with_context(failed)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => bail!(
                "another `cargo dev` uses the data folder {shown}; stop it, or choose another folder with --data and other ports with --http-port 0 --nats-port 0"
            ),
            // Without file locks, users must not start two at once.
            Err(TryLockError::Error(_)) | Ok(()) => Ok(Self {
                folder,
                _lock: lock,
            }),
        }
    }

    /// Deletes everything in the folder except the lock.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let failed = || format!("delete the contents of {}", self.folder.display());
        for entry in fs::read_dir(&self.folder).with_context(failed)? {
            let entry = entry.with_context(failed)?;
            let folder = entry.file_type().with_context(failed)?.is_dir();
            let deleted = match entry.file_name() {
                name if name == MARKER => Ok(()),
                _ if folder => fs::remove_dir_all(entry.path()),
                _ => fs::remove_file(entry.path()),
            };
            match deleted {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(failed);
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn database(&self, service: Service) -> PathBuf {
        self.folder.join(format!("{}.db", service.name()))
    }

    /// The folder of the broker.
    pub(crate) fn nats(&self) -> PathBuf {
        self.folder.join("nats")
    }

    /// The log of the broker.
    pub(crate) fn nats_log(&self) -> PathBuf {
        self.folder.join("nats-server.log")
    }
}

/// Removes other users' access to `path` and to everything in it. Links are not followed: their
/// targets may belong to others.
fn narrow(path: &Path) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return Ok(());
    }
    let mode = found.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(mode & !0o077))?;
    }
    if found.is_dir() {
        for entry in fs::read_dir(path)? {
            narrow(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_an_older_version_is_closed_to_other_users() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("nats")).unwrap();
        std::os::unix::fs::symlink(outside.path(), at("link")).unwrap();
        for file in [MARKER, "users.db", "nats/1.blk"] {
            fs::write(at(file), "").unwrap();
            set(&at(file), 0o664).unwrap();
        }
        for folder in [folder.path(), &at("nats"), outside.path()] {
            set(folder, 0o755).unwrap();
        }
        Data::open(folder.path()).unwrap();
        for file in [MARKER, "users.db", "nats/1.blk"] {
            assert_eq!(mode(&at(file)), 0o600, "{file}");
        }
        for folder in [folder.path(), &at("nats")] {
            assert_eq!(mode(folder), 0o700, "{}", folder.display());
        }
        assert_eq!(mode(outside.path()), 0o755, "links are not followed");
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let thesis = folder.path().join("thesis.odt");
        fs::write(&thesis, "ten years of work").unwrap();
        let refused = Data::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("has not created"), "{refused}");
        assert!(thesis.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_of_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = Data::open(folder.path()).unwrap();
        let refused = Data::open(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("another `cargo dev`"), "{refused}");
        drop(first);
        Data::open(folder.path()).unwrap();
    }

    #[test]
    fn clearing_leaves_the_lock_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let data = Data::open(folder.path()).unwrap();
        fs::write(data.database(Service::named("users")), "").unwrap();
        fs::create_dir_all(data.nats().join("jetstream")).unwrap();
        fs::write(outside.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        data.clear().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(
            outside.path().join("file").exists(),
            "links are not followed"
        );
    }
}
