//! Fakes and probes.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use broker::SearchPaths;
use tempfile::TempDir;

/// An empty temporary folder.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// An executable script in `folder`.
///
/// A child process writes it: while another test forks, a file that this process had open for
/// writing cannot be run (ETXTBSY).
pub(crate) fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    let path = folder.join(name);
    let status = Command::new("/bin/sh")
        .args([
            "-c",
            "printf '%s\\n' '#!/bin/sh' \"$2\" > \"$1\" && chmod 755 \"$1\"",
            "script",
        ])
        .arg(&path)
        .arg(body)
        .status()
        .unwrap();
    assert!(status.success());
    path
}

/// Search paths with nothing in them but `cache`.
pub(crate) fn nowhere(cache: &Path) -> SearchPaths {
    SearchPaths {
        nats_server: None,
        path: OsString::new(),
        cache: cache.to_owned(),
    }
}

/// Search paths with `cache` and the real `PATH` without nats-servers.
pub(crate) fn without_servers(cache: &Path) -> SearchPaths {
    let mut places = SearchPaths::from_env();
    let folders =
        std::env::split_paths(&places.path).filter(|folder| !folder.join("nats-server").exists());
    places.path = std::env::join_paths(folders).unwrap();
    SearchPaths {
        nats_server: None,
        cache: cache.to_owned(),
        ..places
    }
}

/// The first `name` on the real `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = SearchPaths::from_env().path;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Whether this machine can install; prints a message if not.
#[expect(clippy::print_stderr, reason = "a test that is skipped must say so")]
pub(crate) fn can_install(module: &str) -> bool {
    let own_server = SearchPaths::from_env().nats_server.is_some();
    let answers = |python: PathBuf| {
        Command::new(python)
            .args(["-m", module, "--version"])
            .output()
    };
    let can = !own_server
        && program("python3")
            .is_some_and(|python| answers(python).is_ok_and(|o| o.status.success()));
    if !can {
        eprintln!("skipped: no python3 with {module}, or NATS_SERVER is set");
    }
    can
}

/// The names in `folder`, sorted.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Whether the process runs and is not a zombie.
pub(crate) fn runs(pid: u32) -> bool {
    let output = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output()
        .unwrap();
    let state = String::from_utf8(output.stdout).unwrap();
    !state.trim().is_empty() && !state.starts_with('Z')
}

/// The first line from a server on `port`; `None` without one within half a second.
pub(crate) fn introduction(port: u16) -> Option<String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}
