//! The server's configuration file, which is also the lock on its store.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::{self, Error},
    member::Member,
    options::{Options, Port, Sync},
};

/// A configuration file that has been written and locked.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) path: PathBuf,
    /// The folder where the server writes its port; it exists only for [`Port::Free`].
    pub(crate) ports: PathBuf,
    /// Becomes the server's standard input, so that the lock lasts exactly as long as the server.
    pub(crate) locked: File,
}

/// Writes the configuration to the store's folder; [`Error::StoreInUse`] if a server uses it.
pub(crate) fn write(options: &Options, name: &str, port: Port) -> Result<Written, Error> {
    let store =
        std::path::absolute(&options.store).map_err(error::io("find", options.store.display()))?;
    let path = store.join("nats-server.conf");
    let ports = store.join("nats-server.ports");
    let failed = || error::io("write", path.display());
    fs::create_dir_all(&store).map_err(failed())?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed())?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(Error::StoreInUse { store });
    }
    file.set_len(0).map_err(failed())?;
    file.write_all(
        text(options, name, port, &store, &ports)
            .map_err(failed())?
            .as_bytes(),
    )
    .map_err(failed())?;
    // A killed server leaves its file behind.
    match fs::remove_dir_all(&ports) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed()(error)),
        _ => fs::create_dir(&ports).map_err(failed())?,
    }
    Ok(Written {
        path,
        ports,
        locked: file,
    })
}

fn text(
    options: &Options,
    name: &str,
    port: Port,
    store: &Path,
    ports: &Path,
) -> io::Result<String> {
    let listen = match port {
        Port::Free => "-1".to_owned(),
        Port::Fixed(port) => port.to_string(),
    };
    let sync = match options.sync {
        Sync::Always => "sync_interval: always",
        Sync::Default => "# sync_interval: the default",
    };
    let member = options.member.as_ref().map(Member::text);
    let member = member.unwrap_or_default();
    let include = options.include.as_ref();
    let include = include.map(|file| format!("include ./{file}\n"));
    let include = include.unwrap_or_default();
    let (store, ports) = (quoted(store)?, quoted(ports)?);
    Ok(format!(
        "# Written at every start.\n\
         listen: \"127.0.0.1:{listen}\"\n\
         server_name: \"{name}\"\n\
         ports_file_dir: {ports}\n\
         jetstream {{\n  \
           store_dir: {store}\n  \
           {sync}\n\
         }}\n\
         {member}{include}"
    ))
}

/// A path as a string in the configuration language.
fn quoted(path: &Path) -> io::Result<String> {
    let text = path
        .to_str()
        .ok_or_else(|| io::Error::other("nats-server accepts only UTF-8 paths"))?;
    Ok(format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}
