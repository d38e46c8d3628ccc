//! Where to look for nats-server.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use crate::version::Version;

/// A nats-server that reported a usable version.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The program.
    pub path: PathBuf,
    /// The reported version.
    pub version: Version,
}

/// Where to look; [`find`](crate::find()) reads it from the environment.
#[derive(Clone, Debug)]
pub struct SearchPaths {
    /// `NATS_SERVER`: if set, nothing else is tried.
    pub nats_server: Option<OsString>,
    /// `PATH`: for nats-server itself, and for python3 and pip.
    pub path: OsString,
    /// The folder for installed copies, `~/.cache/headwater`.
    pub cache: PathBuf,
}

impl SearchPaths {
    /// Reads the environment; an empty variable counts as unset.
    pub fn from_env() -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let cache = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| env::home_dir().map(|home| home.join(".cache")))
            .unwrap_or_else(env::temp_dir);
        Self {
            nats_server: set("NATS_SERVER"),
            path: set("PATH").unwrap_or_default(),
            cache: cache.join("headwater"),
        }
    }
}

/// The executable files called `name` in the folders of `path`.
pub(crate) fn on_path(path: &OsStr, name: &str) -> impl Iterator<Item = PathBuf> {
    env::split_paths(path)
        .map(move |folder| folder.join(name))
        .filter(|file| {
            fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}
