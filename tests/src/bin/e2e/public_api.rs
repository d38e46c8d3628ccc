//! Compares the public API of each published crate with the list of it in `docs/api`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

/// Only nightly describes an API as JSON, unless this variable says otherwise. In cargo's own
/// environment, it would be a change for build scripts, and everything would be compiled again.
const RUSTDOC: &str = "#!/bin/sh\nRUSTC_BOOTSTRAP=1 exec rustdoc \"$@\"\n";

/// # Errors
/// An API has changed; its list is up to date now.
pub(crate) fn run() -> anyhow::Result<()> {
    let (root, workspace) = published()?;
    let root = Path::new(&root);
    let folder = tempfile::tempdir()?;
    let rustdoc = folder.path().join("rustdoc");
    std::fs::write(&rustdoc, RUSTDOC)?;
    std::fs::set_permissions(&rustdoc, PermissionsExt::from_mode(0o700))?;
    let documented = cargo()
        .args(["doc", "--quiet", "--locked", "--no-deps", "--lib"])
        .args(workspace.iter().flat_map(|(name, _)| ["--package", name]))
        .current_dir(root)
        .env("CARGO_TARGET_DIR", root.join("target"))
        .env("RUSTDOC", &rustdoc)
        .env("RUSTDOCFLAGS", "-Z unstable-options --output-format json")
        .status()?;
    ensure!(documented.success(), "cargo doc: {documented}");

    let mut changed = Vec::new();
    for (name, library) in &workspace {
        let json = root.join(format!("target/doc/{library}.json"));
        let api = public_api::Builder::from_rustdoc_json(json)
            .omit_blanket_impls(true)
            .omit_auto_trait_impls(true)
            .omit_auto_derived_impls(true)
            .build()?;
        let list = root.join(format!("docs/api/{name}.txt"));
        let known = std::fs::read_to_string(&list).unwrap_or_default();
        if known != api.to_string() {
            std::fs::write(&list, api.to_string())?;
            changed.push(format!("docs/api/{name}.txt"));
        }
    }
    ensure!(
        changed.is_empty(),
        "the public API has changed, and docs/api with it: see `git diff docs/api`, commit what is meant, and say in \
         CHANGELOG.md what users must do about it. Changed: {}",
        changed.join(", ")
    );
    Ok(())
}

/// The root of the workspace, and each published crate with the name of its library.
fn published() -> anyhow::Result<(String, Vec<(String, String)>)> {
    let output = cargo()
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().context("packages")?.iter();
    let published = packages.filter(|package| package["publish"].is_null());
    let named = published.map(|package| {
        let mut targets = package["targets"].as_array().into_iter().flatten();
        let library = targets.find(|target| target["kind"][0] == "lib");
        let library = library.context("a published crate is a library")?;
        Ok((text(&package["name"]), text(&library["name"])))
    });
    let named = named.collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!named.is_empty(), "no crate is published");
    Ok((text(&metadata["workspace_root"]), named))
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
