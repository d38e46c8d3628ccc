//! Headwater as `just install` puts it on a machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::programs;

/// Under which the programs are installed.
const PREFIX: &str = "/usr/local";

/// A folder in which Headwater is installed, by the script that `just install` runs.
pub fn installed() -> TempDir {
    let folder = TempDir::new().expect("make a folder");
    install(
        folder.path(),
        &["install", PREFIX, programs().to_str().expect("UTF-8")],
    );
    folder
}

/// Runs the script that `just install` and `just uninstall` run; what it says.
pub fn install(destination: &Path, args: &[&str]) -> String {
    install_with(destination, args, &[])
}

/// [`install`] with more in its environment.
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

/// The root of this repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
