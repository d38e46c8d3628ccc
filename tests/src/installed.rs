//! Headwater as `just install` installs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::programs;

/// The installation prefix of the programs.
const PREFIX: &str = "/usr/local";

/// Installs Headwater into a temporary folder, with the script behind `just install`.
pub fn installed() -> TempDir {
    let folder = TempDir::new().expect("make a folder");
    install(
        folder.path(),
        &["install", PREFIX, programs().to_str().expect("UTF-8")],
    );
    folder
}

/// Runs the script behind `just install` and `just uninstall`; returns its output.
pub fn install(destination: &Path, args: &[&str]) -> String {
    install_with(destination, args, &[])
}

/// [`install`] with more environment variables.
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
