//! The programs of the workspace, as tests run them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder that has the programs already: nothing is built then.
const BUILT: &str = "HEADWATER_PROGRAMS";

/// Any small test: with one, cargo switches on the features that tests switch on, as `cargo test`
/// does, so that the programs are those of `cargo test`.
const TEST: &str = "contract";

/// The program `name` of the workspace, up to date.
///
/// # Panics
/// When it does not build.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(path.is_file(), "there is no {}", path.display());
    path
}

/// The folder of all programs of the workspace, up to date: the first call in a process has cargo
/// build them, which takes half a second after `cargo test`. `HEADWATER_PROGRAMS` names a folder
/// that has them already.
///
/// # Panics
/// When they do not build.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::var_os(BUILT).map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let own = std::env::current_exe().expect("a path of our own");
    let is_apart = |folder: &&Path| {
        !["deps", "examples"]
            .map(OsStr::new)
            .contains(&folder.file_name().unwrap_or_default())
    };
    let folder = own.ancestors().skip(1).find(is_apart).expect("a folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bins", "--target-dir"]);
    command.arg(folder.parent().expect("a target folder"));
    if cfg!(debug_assertions) {
        command.args(["--test", TEST]);
    } else {
        // What is shipped has nothing of the tests in it.
        command.arg("--release");
    }
    // What cargo says of a package to its tests would be a changed environment to the build
    // scripts of others, and half of the workspace would be compiled again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    let built = command.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    assert!(
        built.expect("run cargo").success(),
        "the programs do not build"
    );
    folder.to_owned()
}

/// The environment for a program that has cargo build others and is tested: a `cargo` that says
/// where the [`programs`] are and builds nothing.
///
/// # Panics
/// When the programs do not build.
pub fn has_built() -> [(&'static str, PathBuf); 2] {
    let cargo = Path::new(env!("CARGO_MANIFEST_DIR")).join("cargo-has-built");
    [("CARGO", cargo), (BUILT, programs().to_owned())]
}
