//! `headwater new`: writes a service that compiles and passes its tests. The template is the package
//! `examples/reviews`, with other names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::builder::FalseyValueParser;
use client::Common;
use serde::Serialize;
use terminal::Exit;

use self::manifest::Headwater;
use self::names::Names;

mod manifest;
mod names;

/// Write a new service: an event, a route, a table and tests
///
/// In the Headwater repository, the service becomes part of the shop. Elsewhere, with --standalone,
/// it becomes a package of its own, in a new folder here.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name: a plural in lower case, as in `reviews` or `gift_cards`
    name: String,
    /// Write a package of its own, outside of the Headwater repository
    #[arg(long, env = "HEADWATER_NEW_STANDALONE", value_parser = FalseyValueParser::new())]
    standalone: bool,
    /// The clone of the Headwater repository that it depends on [default: the one in which this
    /// program was built]
    #[arg(
        long,
        env = "HEADWATER_PATH",
        value_name = "DIR",
        conflicts_with = "headwater_git"
    )]
    headwater_path: Option<PathBuf>,
    /// The git repository that it depends on, instead of a clone
    #[arg(
        long,
        env = "HEADWATER_GIT",
        value_name = "URL",
        requires = "headwater_rev"
    )]
    headwater_git: Option<String>,
    /// The commit of --headwater-git
    #[arg(long, env = "HEADWATER_REV", value_name = "COMMIT")]
    headwater_rev: Option<String>,
}

/// The files of the template.
const TEMPLATE: [(&str, &str); 10] = [
    (
        "Cargo.toml",
        include_str!("../../../../examples/reviews/Cargo.toml"),
    ),
    (
        "build.rs",
        include_str!("../../../../examples/reviews/build.rs"),
    ),
    (
        "migrations/0001_reviews.sql",
        include_str!("../../../../examples/reviews/migrations/0001_reviews.sql"),
    ),
    (
        EVENTS,
        include_str!("../../../../examples/reviews/proto/reviews/v1/events.proto"),
    ),
    (
        MODULE,
        include_str!("../../../../examples/reviews/src/events.rs"),
    ),
    (
        "src/http.rs",
        include_str!("../../../../examples/reviews/src/http.rs"),
    ),
    (
        "src/lib.rs",
        include_str!("../../../../examples/reviews/src/lib.rs"),
    ),
    (
        "src/main.rs",
        include_str!("../../../../examples/reviews/src/main.rs"),
    ),
    (
        "src/review.rs",
        include_str!("../../../../examples/reviews/src/review.rs"),
    ),
    (
        "src/store.rs",
        include_str!("../../../../examples/reviews/src/store.rs"),
    ),
];

const EVENTS: &str = "proto/reviews/v1/events.proto";

/// The module of events.
const MODULE: &str = "src/events.rs";

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    service: String,
    folder: PathBuf,
    files: Vec<PathBuf>,
    next: Vec<String>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "wrote {} in {}; next:",
            self.service,
            self.folder.display()
        )?;
        self.next
            .iter()
            .try_for_each(|step| write!(f, "\n  {step}"))
    }
}

/// `Done` if the service was written, `Usage` if its name cannot be used.
pub(crate) fn command(common: &Common, args: &Args) -> anyhow::Result<Exit> {
    let here = std::env::current_dir().context("find the current folder")?;
    let names = match Names::of(&args.name) {
        Ok(names) => names,
        Err(why) => return common.refuse(&why, Exit::Usage),
    };
    let written = if args.standalone {
        standalone(&names, &here, &headwater(args)?)
    } else {
        in_the_shop(&names, &here)
    };
    common.print(&written?)?;
    Ok(Exit::Done)
}

/// Where a standalone service finds the crates.
fn headwater(args: &Args) -> anyhow::Result<Headwater> {
    if let (Some(url), Some(rev)) = (args.headwater_git.clone(), args.headwater_rev.clone()) {
        return Ok(Headwater::Git { url, rev });
    }
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let clone = args.headwater_path.as_deref().unwrap_or(&built_in);
    let clone = clone
        .canonicalize()
        .ok()
        .filter(|clone| is_repository(clone));
    let clone = clone.context(
        "no clone of the Headwater repository is there: name one with --headwater-path, or a \
         repository with --headwater-git and --headwater-rev",
    )?;
    Ok(Headwater::Clone(clone))
}

fn is_repository(folder: &Path) -> bool {
    let parts = [
        "crates/chassis/headwater/Cargo.toml",
        "crates/shop",
        "proto",
    ];
    parts.iter().all(|part| folder.join(part).exists())
}

/// A package of its own below `here`.
fn standalone(names: &Names, here: &Path, headwater: &Headwater) -> anyhow::Result<Written> {
    let folder = here.join(&names.service);
    ensure!(
        !here
            .ancestors()
            .any(|above| above.join("Cargo.toml").exists()),
        "{} is in a Cargo package or workspace: run this outside of it",
        here.display()
    );
    let mut files = Vec::new();
    for (path, text) in TEMPLATE {
        let text = match path {
            "Cargo.toml" => manifest::standalone(text, headwater)?,
            EVENTS => text.replace("package shop.", "package "),
            _ => text.to_owned(),
        };
        files.push((folder.join(names.in_path(path)), names.in_text(&text)));
    }
    files.push((folder.join(".gitignore"), "/target\n*.db*\n".to_owned()));
    let cargo = include_str!("../../../../.cargo/config.toml");
    let (_, cargo) = cargo.split_once("\n\n").context("the settings of Cargo")?;
    files.push((folder.join(".cargo/config.toml"), cargo.to_owned()));
    if let Headwater::Clone(clone) = headwater {
        let lock = std::fs::read_to_string(clone.join("Cargo.lock")).context("read Cargo.lock")?;
        files.push((folder.join("Cargo.lock"), lock));
        let toolchain = std::fs::read_to_string(clone.join("rust-toolchain.toml"));
        let toolchain = toolchain.context("read rust-toolchain.toml")?;
        files.push((folder.join("rust-toolchain.toml"), toolchain));
    }
    let next = vec![
        format!("cd {}", names.service),
        "cargo test".to_owned(),
        "nats-server -js &    # in the clone, `cargo run --bin find-nats-server` prints one"
            .to_owned(),
        "cargo run".to_owned(),
    ];
    write(names, folder, files, next)
}

/// A part of the shop, in the repository in which `here` is.
fn in_the_shop(names: &Names, here: &Path) -> anyhow::Result<Written> {
    let root = here.ancestors().find(|above| is_repository(above));
    let root = root.with_context(|| {
        format!(
            "{} is not in the Headwater repository: add --standalone for a package of its own",
            here.display()
        )
    })?;
    let shop = root.join("crates/shop");
    let folder = shop.join(&names.service);
    let proto = root.join("proto");
    ensure!(
        !proto.join(&names.service).exists(),
        "{} exists: there is a source {}; choose another name",
        proto.join(&names.service).display(),
        names.service
    );
    ensure!(
        names.service != "e2e" && !root.join("crates/tools").join(&names.service).exists(),
        "the workspace has a package {}; choose another name",
        names.service
    );
    let mut files = Vec::new();
    for (path, text) in TEMPLATE {
        let at = match path {
            "build.rs" => continue,
            EVENTS => root.join(names.in_path(path)),
            _ => folder.join(names.in_path(path)),
        };
        let text = match path {
            "Cargo.toml" => manifest::in_the_shop(text, &shop)?,
            MODULE => String::from(
                "//! The events: `proto/reviews/v1/events.proto`.\n\npub(crate) use shop_events::{ReviewWritten, SCHEMA};\n",
            ),
            _ => text.to_owned(),
        };
        files.push((at, names.in_text(&text)));
    }
    let (port, _) = manifest::next(&shop)?;
    for (_, text) in &mut files {
        *text = text.replace("port: 8086", &format!("port: {port}"));
    }
    let next = vec![
        format!("cargo test -p {}", names.service),
        "cargo test -p shop-events    # prints the lines for contract.txt".to_owned(),
        "UPDATE=1 cargo test -p shop  # writes the files of deploy/".to_owned(),
        "cargo dev".to_owned(),
    ];
    write(names, folder, files, next)
}

fn write(
    names: &Names,
    folder: PathBuf,
    files: Vec<(PathBuf, String)>,
    next: Vec<String>,
) -> anyhow::Result<Written> {
    if folder.exists() {
        bail!(
            "{} exists: choose another name, or remove it",
            folder.display()
        );
    }
    for (path, text) in &files {
        let parent = path.parent().context("a file is in a folder")?;
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(path, text))
            .with_context(|| format!("write {}", path.display()))?;
    }
    let files: Vec<PathBuf> = files.into_iter().map(|(path, _)| path).collect();
    // Longer names may break lines elsewhere. Without rustfmt, the code is as right.
    let code = files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let _ = Command::new("rustfmt")
        .args(["--edition", "2024"])
        .args(code)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    Ok(Written {
        service: names.service.clone(),
        folder,
        files,
        next,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_the_whole_example() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/reviews");
        let mut folders = vec![example.clone()];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.push(path.strip_prefix(&example).unwrap().display().to_string());
                }
            }
        }
        files.retain(|file| file != "README.md");
        files.sort();
        let mut template = TEMPLATE.map(|(path, _)| path.to_owned());
        template.sort();
        assert_eq!(files, template);
    }
}
