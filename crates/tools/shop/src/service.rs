//! The list of services.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

/// A service of the shop: `[package.metadata.headwater]` in its manifest.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Its name, that of its package.
    #[serde(skip)]
    pub name: String,
    /// Its port; health and metrics have the one 1000 after it.
    pub port: u16,
    /// The colour of its log lines in `cargo dev`, as an ANSI code.
    pub colour: u8,
    /// What it does, as in "Headwater orders: places orders".
    pub does: String,
    /// Whether it publishes events.
    #[serde(default)]
    pub source: bool,
    /// Whether it answers questions of other services, `inquiry.NAME.v1.asked`.
    #[serde(default)]
    pub answers: bool,
    /// The questions that it may ask other services, `NAME.v1.QUESTION`, besides those of its style
    /// request-reply.
    #[serde(default)]
    pub asks: Vec<String>,
    /// Its projections, each with the sources that it reads.
    #[serde(default)]
    pub projections: BTreeMap<String, Vec<String>>,
    /// Its effects that may be switched on, each with the sources that it reads.
    #[serde(default)]
    pub effects: BTreeMap<String, Vec<String>>,
    /// The same program under other names.
    #[serde(default)]
    pub styles: Vec<Style>,
}

impl Service {
    /// Whether it answers this question, `NAME.v1.QUESTION`.
    pub(crate) fn is_asked(&self, question: &str) -> bool {
        question.split('.').next() == Some(&*self.name)
    }

    /// Its projections and effects, each with the sources that it reads.
    pub(crate) fn consumers(&self) -> impl Iterator<Item = (&String, &Vec<String>)> {
        self.projections.iter().chain(&self.effects)
    }
}

/// A program that runs under another name, with `--style`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Style {
    /// The name under which it runs.
    pub name: String,
    /// The value of `--style`.
    pub style: String,
    /// As for a [`Service`].
    pub port: u16,
    /// As for a [`Service`].
    pub colour: u8,
}

#[derive(Deserialize)]
struct Workspace {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    headwater: Option<serde_json::Value>,
}

/// The services of the repository `root`: sources by their ports, then the others by theirs.
///
/// # Errors
/// Cargo cannot read the workspace; an entry is not as [`Service`] says; two have a port; a
/// projection reads a source that does not exist.
pub fn services(root: &Path) -> anyhow::Result<Vec<Service>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("run cargo metadata")?;
    let why = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {why}");
    let workspace: Workspace =
        serde_json::from_slice(&output.stdout).context("read what cargo metadata prints")?;
    let mut services = Vec::new();
    for package in workspace.packages {
        let folder = Path::new(&package.manifest_path).parent();
        let is_of_shop = folder.is_some_and(|folder| {
            let above = folder.parent().map(|above| above.ends_with("crates/shop"));
            above.unwrap_or(false)
        });
        let entry = package.metadata.and_then(|metadata| metadata.headwater);
        let Some(entry) = entry.filter(|_| is_of_shop) else {
            continue;
        };
        let at = format!("[package.metadata.headwater] in {}", package.manifest_path);
        let service: Service = serde_json::from_value(entry).context(at)?;
        services.push(Service {
            name: package.name,
            ..service
        });
    }
    services.sort_by_key(|service| (!service.source, service.port));
    check(&services)?;
    Ok(services)
}

fn check(services: &[Service]) -> anyhow::Result<()> {
    let mut ports = BTreeSet::new();
    for service in services {
        let styles = service.styles.iter().map(|style| style.port);
        for port in styles.chain([service.port]) {
            let name = &service.name;
            ensure!(ports.insert(port), "{name}: port {port} is taken");
        }
        for question in &service.asks {
            ensure!(
                services
                    .iter()
                    .any(|it| it.answers && it.is_asked(question)),
                "{} asks {question}, which no service answers",
                service.name
            );
        }
        for (consumer, sources) in service.consumers() {
            for source in sources {
                ensure!(
                    services.iter().any(|it| it.source && it.name == *source),
                    "{consumer} reads {source}, which is no source"
                );
            }
        }
    }
    Ok(())
}
