//! Building the services.

use std::collections::HashMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::process::Command;

use crate::args::workspace;
use crate::screen::Screen;
use crate::service::Service;

/// The paths of the binaries.
#[derive(Debug)]
pub(crate) struct Binaries(HashMap<String, PathBuf>);

/// A message of cargo about an artifact.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds the services with the cargo that runs us, or the one on `PATH`; its output is shown.
/// Cargo takes the target folder from the same environment as our own build, and its messages name
/// the binaries.
pub(crate) async fn services(release: bool, screen: Screen) -> anyhow::Result<Binaries> {
    screen.say("building the services; the first time takes a few minutes …");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(&cargo);
    command.args(["build", "--message-format", "json-render-diagnostics"]);
    for service in Service::all() {
        command.args(["--package", service.package(), "--bin", &service.binary()]);
    }
    if release {
        command.arg("--release");
    }
    let building = command
        .current_dir(workspace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("run {} in {}", cargo.display(), workspace().display()))?;
    let done = building.wait_with_output().await.context("run cargo")?;
    if !done.status.success() {
        bail!("the services do not build; see cargo's errors above");
    }
    Ok(Binaries(executables(&String::from_utf8_lossy(
        &done.stdout,
    ))))
}

fn executables(messages: &str) -> HashMap<String, PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|Message { target, executable }| Some((target?.name, executable?)))
        .collect()
}

impl Binaries {
    pub(crate) fn of(&self, service: Service) -> anyhow::Result<&Path> {
        let name = service.binary();
        let path = self.0.get(&name).map(PathBuf::as_path);
        path.with_context(|| format!("cargo built no {name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_picked_from_what_cargo_says() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"users"},"executable":null}
{"reason":"build-script-executed","package_id":"ring"}
not ours
{"reason":"compiler-artifact","target":{"name":"headwater-users"},"executable":"/t/headwater-users"}
{"reason":"build-finished","success":true}"#;
        let found = executables(messages);
        assert_eq!(found.len(), 1);
        assert_eq!(found["headwater-users"], Path::new("/t/headwater-users"));
    }
}
