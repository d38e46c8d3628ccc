//! The programs of the workspace, built for tests.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names a folder with programs that are already built. Nothing is built then.
const BUILT: &str = "HEADWATER_PROGRAMS";

/// Any small test: with it, cargo enables the features of tests, so that it builds the same
/// programs as `cargo test`.
const TEST: &str = "contract";

/// The program `name` of the workspace, up to date.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(path.is_file(), "there is no {}", path.display());
    path
}

/// The folder of all programs of the workspace, up to date. The first call in a process runs
/// cargo to build them, which takes half a second after `cargo test`. If `HEADWATER_PROGRAMS` is
/// set, it names a folder with programs that are already built.
pub fn programs() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| std::env::var_os(BUILT).map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    let own = std::env::current_exe().expect("the path of this program");
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
        // Released programs have no features of tests.
        command.arg("--release");
    }
    // Cargo sets variables about a package for its tests. For build scripts of other packages they
    // would be a changed environment, and half of the workspace would be compiled again.
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

/// The environment for testing a program that runs cargo to build other programs: a `cargo` that
/// reports the paths of the [`programs`] and builds nothing.
pub fn has_built() -> [(&'static str, PathBuf); 2] {
    let cargo = Path::new(env!("CARGO_MANIFEST_DIR")).join("cargo-has-built");
    [("CARGO", cargo), (BUILT, programs().to_owned())]
}
