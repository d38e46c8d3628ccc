//! Which file a path leads to. A process still writes to a file that was renamed or deleted while
//! open, and those writes are lost at the next start.

use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A path and the file that it leads to, by device and inode, with links followed.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    path: PathBuf,
    file: (u64, u64),
    /// The identity of a file that belongs to this one.
    other: Option<Box<Identity>>,
}

impl Identity {
    /// The file that `path` leads to now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: found(path)?,
            other: None,
        })
    }

    /// Adds `other`, which must also stay where it is.
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            other: Some(Box::new(other)),
            ..self
        }
    }

    /// What happened to this file, or to the file that belongs to it, if its path no longer leads
    /// to it. Costs one `stat` per file.
    pub(super) fn moved(&self) -> Option<String> {
        let other = || self.other.as_ref()?.moved();
        self.moved_itself().or_else(other)
    }

    /// [`moved`](Self::moved) for this file only.
    pub(super) fn moved_itself(&self) -> Option<String> {
        let what = match found(&self.path) {
            Ok(file) if file == self.file => return None,
            Ok(_) => "another file is in its place".to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => "it is gone".to_owned(),
            Err(error) => format!("it cannot be checked ({error})"),
        };
        Some(format!("{} was opened, and {what}", self.path.display()))
    }
}

fn found(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_renamed_deleted_or_replaced_file_is_noticed_until_it_is_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.db"), "").unwrap();
        symlink(at("a.db"), at("link.db")).unwrap();
        let opened = ["a.db", "link.db"].map(|name| Identity::of(&at(name)).unwrap());
        let moved = || opened.each_ref().map(Identity::moved);
        assert_eq!(moved(), [None, None]);

        fs::rename(at("a.db"), at("b.db")).unwrap();
        let gone = moved().map(Option::unwrap);
        assert!(
            gone.iter().all(|what| what.ends_with("it is gone")),
            "{gone:?}"
        );
        fs::write(at("a.db"), "").unwrap();
        let replaced = moved().map(Option::unwrap);
        let is_replaced = |what: &String| what.ends_with("another file is in its place");
        assert!(replaced.iter().all(is_replaced), "{replaced:?}");

        fs::rename(at("b.db"), at("a.db")).unwrap();
        assert_eq!(moved(), [None, None]);
        fs::remove_file(at("link.db")).unwrap();
        symlink(at("c.db"), at("link.db")).unwrap();
        assert!(opened[1].moved().is_some(), "the link leads elsewhere");
        assert_eq!(opened[0].moved(), None);
    }
}
