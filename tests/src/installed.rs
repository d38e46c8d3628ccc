//! Headwater as `just install` puts it on a machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::process::program;

/// Under which the programs are installed.
const PREFIX: &str = "/usr/local";

/// A folder in which Headwater is installed, by the script that `just install` runs.
///
/// # Panics
/// When it does not build, or is not installed.
pub fn installed() -> TempDir {
    let folder = TempDir::new().expect("make a folder");
    install(
        folder.path(),
        &["install", PREFIX, binaries().to_str().expect("UTF-8")],
    );
    folder
}

/// Runs the script that `just install` and `just uninstall` run; what it says.
///
/// # Panics
/// When it fails.
pub fn install(destination: &Path, args: &[&str]) -> String {
    install_with(destination, args, &[])
}

/// [`install`] with more in its environment.
///
/// # Panics
/// When it fails.
pub fn install_with(destination: &Path, args: &[&str], variables: &[(&str, &str)]) -> String {
    let broker = broker::find(&|_| {}).expect("find nats-server");
    let output = Command::new(repository().join("deploy/systemd/install.sh"))
        .args(args)
        .envs(variables.iter().copied())
        .env("DESTDIR", destination)
        .env("NATS_SERVER", broker.path)
        .output()
        .expect("run install.sh");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

/// The folder of the programs, built as they are for tests.
///
/// # Panics
/// When they do not build.
pub fn binaries() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
            let mut command = Command::new(cargo);
            command.args(["build", "--quiet", "--bins"]);
            // What cargo says of this package to its tests is a changed environment to the build
            // scripts of others, which would compile half of the workspace again.
            for (name, _) in std::env::vars_os() {
                let text = name.to_string_lossy();
                if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                    command.env_remove(&name);
                }
            }
            let built = command.current_dir(repository()).status();
            assert!(built.expect("run cargo").success(), "it does not build");
            let folder = program("headwater-users");
            folder.parent().expect("a folder").to_owned()
        })
        .clone()
}

/// The root of this repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
