//! The manifest of a new service, from that of the template.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The workspace, for the versions of dependencies.
const WORKSPACE: &str = include_str!("../../../../../Cargo.toml");

/// Where a standalone service finds the crates of Headwater.
#[derive(Debug)]
pub(super) enum Headwater {
    /// In a clone.
    Clone(PathBuf),
    /// At a commit of a git repository.
    Git { url: String, rev: String },
}

impl Headwater {
    /// The crate `name` in a manifest: `path = "…"`.
    fn of(&self, name: &str) -> String {
        match self {
            Self::Clone(clone) => {
                let folder = name.strip_prefix("headwater-").unwrap_or(name);
                let path = clone.join("crates/chassis").join(folder);
                format!("path = \"{}\"", path.display())
            }
            Self::Git { url, rev } => format!("git = \"{url}\", rev = \"{rev}\""),
        }
    }
}

/// The entry of `[workspace.dependencies]` for `name`, without braces: `version = "1"`.
fn entry(name: &str) -> anyhow::Result<String> {
    let start = format!("{name} = ");
    let line = WORKSPACE.lines().find_map(|line| line.strip_prefix(&start));
    let line = line.with_context(|| format!("the workspace has no dependency {name}"))?;
    Ok(match line.strip_prefix('{') {
        Some(table) => table.trim_end_matches('}').trim().to_owned(),
        None => format!("version = {line}"),
    })
}

/// The manifest of a package of its own, with `headwater` from there.
pub(super) fn standalone(template: &str, headwater: &Headwater) -> anyhow::Result<String> {
    let (body, _lints) = template.split_once("\n[lints]").context("[lints]")?;
    let mut text = String::new();
    for line in body.lines() {
        let field = line.strip_suffix(".workspace = true");
        match field {
            Some("version") => text.push_str("version = \"0.1.0\""),
            Some("edition") => text.push_str("edition = \"2024\""),
            Some("rust-version" | "license" | "repository" | "publish") => continue,
            _ => text.push_str(&dependency(line, headwater)?),
        }
        text.push('\n');
    }
    // Less to compile and to link; and SQLite is slow without optimisation.
    let profile = WORKSPACE.find("[profile.dev]\n").context("[profile.dev]")?;
    let profile = &WORKSPACE[profile..];
    let (general, _) = profile.split_once("\n#").context("the optimised ones")?;
    let sqlite = "[profile.dev.package.libsqlite3-sys]\nopt-level = 3\n";
    Ok(format!("{text}\n{general}\n{sqlite}"))
}

/// A line of the manifest, without `workspace = true`.
fn dependency(line: &str, headwater: &Headwater) -> anyhow::Result<String> {
    let (name, features) = match line.split_once(" = { workspace = true") {
        Some((name, rest)) => (name, rest.trim_end_matches('}').trim()),
        None => match line.strip_suffix(".workspace = true") {
            Some(name) => (name, ""),
            None => return Ok(line.to_owned()),
        },
    };
    let from = if name.starts_with("headwater") {
        headwater.of(name)
    } else {
        entry(name)?
    };
    Ok(format!("{name} = {{ {from}{features} }}"))
}

/// The manifest of a service of the shop, whose events are in `shop-events`.
pub(super) fn in_the_shop(template: &str, shop: &Path) -> anyhow::Result<String> {
    let build = "[build-dependencies]\nheadwater-build.workspace = true\n\n";
    let text = template
        .replace(build, "")
        .replace("prost.workspace = true\n", "")
        .replace(
            "\nthiserror.w",
            "\nshop-events.workspace = true\nthiserror.w",
        );
    let (package, rest) = text.split_once("[[bin]]").context("[[bin]]")?;
    let (port, colour) = next(shop)?;
    Ok(format!(
        "{package}# deploy/, `cargo dev` and the end-to-end tests find the service here.\n\
         [package.metadata.headwater]\nport = {port}\ncolour = {colour}\n\
         does = \"keeps reviews\"\nsource = true\n\n[[bin]]{rest}"
    ))
}

/// The first port that the services of the shop leave free, and the colour used least.
pub(super) fn next(shop: &Path) -> anyhow::Result<(u16, u8)> {
    let (mut ports, mut colours) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(shop).context("list the services")? {
        let manifest = entry
            .context("list the services")?
            .path()
            .join("Cargo.toml");
        let text = std::fs::read_to_string(manifest).unwrap_or_default();
        let values = |key: &str| -> Vec<u16> {
            let after = text
                .split(key)
                .skip(1)
                .map(|rest| rest.trim_start_matches(" = "));
            let digits = after.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
            digits.filter_map(|digits| digits?.parse().ok()).collect()
        };
        ports.extend(values("port"));
        colours.extend(values("colour"));
    }
    let port = ports.iter().max().context("no service has a port")? + 1;
    let used = |colour: &u16| colours.iter().filter(|other| *other == colour).count();
    let colour = (31..=36).min_by_key(used).unwrap_or(31);
    Ok((port, u8::try_from(colour).context("a colour")?))
}
