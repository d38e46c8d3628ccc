//! Schemas cached in files, because `decode` is a new process for each event.
//!
//! A file is used without asking the broker for [`FRESH`]. After that the broker is asked, and the
//! file is used only if the broker cannot be reached. An old schema still decodes what it used to:
//! schemas only grow.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::schemas::is_source;

/// How long a file is fresh.
const FRESH: Duration = Duration::from_mins(1);

/// The cached schemas of one broker.
#[derive(Debug)]
pub struct Cache(Option<PathBuf>);

impl Cache {
    /// The cache for `whose`: the broker's address and the login, since another account has another
    /// bucket. Without a cache folder nothing is cached.
    pub fn of(whose: &str) -> Self {
        let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let base = folder("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(folder("HOME")?).join(".cache")))
            .filter(|base| base.is_absolute());
        let name = hash(whose);
        Self(base.map(|base| base.join("headwater").join("schemas").join(name)))
    }

    /// The entry of `source`, and whether it is fresh.
    pub fn load(&self, source: &str) -> Option<(Vec<u8>, bool)> {
        let file = self.file(source)?;
        let entry = std::fs::read(&file).ok()?;
        Some((entry, is_fresh(&file)))
    }

    /// Caches the entry of `source`. A failure only costs time later and is ignored.
    pub fn keep(&self, source: &str, entry: &[u8]) {
        let Some(file) = self.file(source) else {
            return;
        };
        if let Some(folder) = file.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        // Several processes may write at once, each to its own file. The last rename wins.
        let own = file.with_extension(format!("{}.new", std::process::id()));
        let written = std::fs::File::create(&own).and_then(|mut new| new.write_all(entry));
        let renamed = written.and_then(|()| std::fs::rename(&own, &file));
        if renamed.is_err() {
            let _ = std::fs::remove_file(&own);
        }
    }

    /// `None` if `source` is not a valid name, so that it cannot lead out of the folder.
    fn file(&self, source: &str) -> Option<PathBuf> {
        let folder = self.0.as_ref()?;
        is_source(source).then(|| folder.join(format!("{source}.json")))
    }
}

fn hash(whose: &str) -> String {
    let digest = Sha256::digest(whose.as_bytes());
    let first = digest.first_chunk().expect("it has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*first))
}

/// A file from the future is not fresh: the clock was wrong then, or is now.
#[expect(
    clippy::disallowed_methods,
    reason = "the age of a file on this machine"
)]
fn is_fresh(file: &Path) -> bool {
    let written = std::fs::metadata(file).and_then(|about| about.modified());
    let age = written
        .ok()
        .and_then(|written| SystemTime::now().duration_since(written).ok());
    age.is_some_and(|age| age < FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_kept_and_no_source_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache(Some(folder.path().join("deep")));
        assert!(cache.load("orders").is_none());
        cache.keep("orders", b"{}");
        assert_eq!(cache.load("orders"), Some((b"{}".to_vec(), true)));
        for wrong in ["", "../orders", "a/b", "a.b", ".."] {
            cache.keep(wrong, b"{}");
            assert!(cache.load(wrong).is_none(), "{wrong}");
        }
        let kept = std::fs::read_dir(folder.path().join("deep")).expect("a folder");
        assert_eq!(kept.count(), 1);
    }

    #[test]
    fn an_old_file_is_not_fresh() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache(Some(folder.path().to_owned()));
        cache.keep("orders", b"{}");
        let file = std::fs::File::options()
            .write(true)
            .open(folder.path().join("orders.json"))
            .expect("a file");
        file.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
        assert_eq!(cache.load("orders"), Some((b"{}".to_vec(), false)));
    }
}
