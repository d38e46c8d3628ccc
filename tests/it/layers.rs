//! Which crate may depend on which, no cycles between modules, and a size limit for crates.
//! `ARCHITECTURE.md` draws what the manifests say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use syn::visit::{self, Visit};
use syn::{ItemMod, ItemUse, UseTree, Visibility};

/// Stands for the services of the shop.
const SERVICES: &[&str] = &["the services"];

/// From the bottom up: a crate depends only on crates in the lines before its own.
const LAYERS: &[&[&str]] = &[
    &[
        "headwater-broker",
        "headwater-build",
        "headwater-event",
        "headwater-telemetry",
        "local-page",
        "shop",
    ],
    &["headwater-nats", "headwater-store", "shop-events"],
    &[
        "headwater-backup",
        "headwater-http",
        "headwater-projection",
        "headwater-relay",
    ],
    &["headwater-effect", "headwater-rebuild"],
    &["headwater"],
    &["headwater-testkit"],
    SERVICES,
    &["terminal"],
    &["client", "shop-import"],
    &["survey"],
    &["maintenance"],
    &["headwater-console"],
    &["cli"],
    &["bench", "dev"],
];

/// The maximum lines of code in a crate's `src`, without tests, blank lines and comments.
const LINES_MAX: usize = 4_000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A crate below `crates/`.
struct Crate {
    name: String,
    src: PathBuf,
    /// The crates of this repository that its own code depends on.
    depends_on: BTreeSet<String>,
}

impl Crate {
    fn of(package: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let own = dependencies.filter(|it| it["kind"].is_null() && !it["path"].is_null());
        Self {
            name: text(&package["name"]),
            src: Path::new(&text(&package["manifest_path"])).with_file_name("src"),
            depends_on: own.map(|it| text(&it["name"])).collect(),
        }
    }
}

fn crates() -> BTreeMap<String, Crate> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let crates = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(Crate::of);
    crates
        .filter(|it| it.src.parent().unwrap().parent().unwrap().parent() == Some(&crates_folder()))
        .map(|it| (it.name.clone(), it))
        .collect()
}

/// The services of the shop, sorted.
fn services() -> BTreeSet<String> {
    let services = shop::services(&root()).unwrap().into_iter();
    services.map(|service| service.name).collect()
}

fn layers() -> Vec<Vec<String>> {
    let layers = LAYERS.iter().map(|layer| match *layer {
        SERVICES => services().into_iter().collect(),
        names => names.iter().map(|name| (*name).to_owned()).collect(),
    });
    layers.collect()
}

fn crates_folder() -> PathBuf {
    root().join("crates").canonicalize().unwrap()
}

#[test]
fn no_crate_depends_upwards() {
    let (crates, layers) = (crates(), layers());
    let floor = |name: &str| {
        layers
            .iter()
            .position(|layer| layer.iter().any(|it| it == name))
    };
    for Crate {
        name, depends_on, ..
    } in crates.values()
    {
        let own = floor(name).unwrap_or_else(|| panic!("{name} is not in LAYERS"));
        for other in depends_on {
            let is_below = floor(other).is_some_and(|floor| floor < own);
            assert!(is_below, "{name} depends on {other}, which is not below it");
        }
    }
    for name in layers.iter().flatten() {
        assert!(crates.contains_key(name), "there is no crate {name}");
    }
}

/// deploy/ has the port of the manifest, and the program the one of its `ABOUT`.
#[test]
fn a_service_listens_on_the_port_of_its_manifest() {
    for shop::Service { name, port, .. } in shop::services(&root()).unwrap() {
        let code = std::fs::read_to_string(crates()[&name].src.join("lib.rs")).unwrap();
        let about = code.contains(&format!("    port: {port},\n"));
        assert!(
            about,
            "crates/shop/{name}/src/lib.rs: the manifest has port {port}"
        );
    }
}

#[test]
fn a_service_names_the_chassis_and_the_events_of_the_shop_and_nothing_else() {
    let crates = crates();
    for service in services() {
        let expected = ["headwater", "shop-events"].map(str::to_owned);
        assert_eq!(crates[&service].depends_on, expected.into(), "{service}");
    }
    let expected = ["headwater-event".to_owned()];
    assert_eq!(crates["shop-events"].depends_on, expected.into());
}

#[test]
fn the_architecture_draws_the_dependencies_that_there_are() {
    const BEGIN: &str = "<!-- drawn by layers::the_architecture_draws_the_dependencies -->\n";
    const END: &str = "<!-- end of the drawing -->";
    let document = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, rest) = document.split_once(BEGIN).expect("the drawing begins");
    let (drawn, _) = rest.split_once(END).expect("the drawing ends");
    let expected = drawing(&crates());
    assert!(
        drawn == expected,
        "put this between the two marks in ARCHITECTURE.md:\n\n{expected}"
    );
}

/// An arrow from each crate to its dependencies, without those it has through another crate; upper
/// crates first.
fn drawing(crates: &BTreeMap<String, Crate>) -> String {
    let mut text = "```mermaid\nflowchart TD\n".to_owned();
    for name in layers().iter().rev().flatten() {
        let own = &crates[name].depends_on;
        let through: BTreeSet<&str> = own.iter().flat_map(|it| all(crates, it)).collect();
        for other in own.iter().filter(|it| !through.contains(&***it)) {
            writeln!(text, "  {name} --> {other}").unwrap();
        }
    }
    text + "```\n"
}

/// All crates that `name` depends on, directly or not.
fn all<'a>(crates: &'a BTreeMap<String, Crate>, name: &str) -> BTreeSet<&'a str> {
    let own = crates[name].depends_on.iter();
    own.flat_map(|it| all(crates, it).into_iter().chain([&**it]))
        .collect()
}

#[test]
fn no_crate_is_too_large() {
    for Crate { name, src, .. } in crates().values() {
        let lines: usize = rust_files(src).iter().map(|file| code_lines(file)).sum();
        assert!(lines <= LINES_MAX, "{name}/src has {lines} lines of code");
    }
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|it| it == "rs") {
            files.push(path);
        }
    }
    files
}

fn code_lines(file: &Path) -> usize {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

#[test]
fn modules_form_no_circle() {
    for Crate { name, src, .. } in crates().values() {
        let modules = Modules::read(src);
        let circle = circle(modules.arrows());
        assert!(circle.is_empty(), "in {name}:\n{}", circle.join("\n"));
    }
}

#[test]
fn a_circle_is_seen_through_a_name_that_another_module_hands_on() {
    let source = |text: &str| Module::parse(text);
    let modules = Modules(BTreeMap::from([
        (path(""), source("mod a; mod b; pub use a::A;")),
        (path("a"), source("use crate::b::B; pub struct A(B);")),
        (path("b"), source("pub struct B(crate::A);")),
    ]));
    assert_eq!(circle(modules.arrows()), ["a -> b", "b -> a"]);
    let without = Modules(BTreeMap::from([
        (path(""), source("mod a; mod b; pub use a::A;")),
        (path("a"), source("use crate::b::B; pub struct A(B);")),
        (
            path("b"),
            source("#[cfg(test)] mod tests { use crate::A; }"),
        ),
    ]));
    assert!(circle(without.arrows()).is_empty());
}

/// The path of a module or an item from the crate root.
type Names = Vec<String>;

fn path(text: &str) -> Names {
    let names = text.split("::").filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// The names in a file, as written, and its imports.
#[derive(Default)]
struct Module {
    named: Vec<Names>,
    /// Imported and re-exported paths, by the name that they have here.
    aliases: BTreeMap<String, Names>,
    /// How many inline modules enclose the visited item.
    inline: usize,
}

impl Module {
    fn parse(text: &str) -> Self {
        let mut module = Self::default();
        module.visit_file(&syn::parse_file(text).expect("it compiles"));
        module
    }

    fn import(&mut self, before: &[String], tree: &UseTree, is_handed_on: bool) {
        let with = |name: &dyn ToString| [before, &[name.to_string()]].concat();
        let (name, full) = match tree {
            UseTree::Path(path) => {
                return self.import(&with(&path.ident), &path.tree, is_handed_on);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(before, tree, is_handed_on);
                }
                return;
            }
            UseTree::Name(name) if name.ident == "self" => match before.last() {
                Some(last) => (last.clone(), before.to_vec()),
                None => return,
            },
            UseTree::Name(name) => (name.ident.to_string(), with(&name.ident)),
            UseTree::Rename(rename) => (rename.rename.to_string(), with(&rename.ident)),
            UseTree::Glob(_) => (String::new(), before.to_vec()),
        };
        if !is_handed_on {
            self.named.push(full.clone());
        }
        self.aliases.insert(name, full);
    }

    /// `names` without the steps out of inline modules.
    fn outside(&self, mut names: Names) -> Names {
        for _ in 0..self.inline {
            if names.first().is_some_and(|first| first == "super") {
                names.remove(0);
            }
        }
        names
    }
}

impl<'a> Visit<'a> for Module {
    fn visit_item_mod(&mut self, module: &'a ItemMod) {
        let is_test = module.attrs.iter().any(|it| it.path().is_ident("cfg"));
        if !is_test {
            self.inline += 1;
            visit::visit_item_mod(self, module);
            self.inline -= 1;
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        let is_handed_on = !matches!(item.vis, Visibility::Inherited);
        self.import(&[], &item.tree, is_handed_on);
    }

    /// `pub(super)` does not count as a dependency on the parent.
    fn visit_visibility(&mut self, _: &'a Visibility) {}

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names = path.segments.iter().map(|it| it.ident.to_string());
        let names = self.outside(names.collect());
        self.named.push(names);
        visit::visit_path(self, path);
    }
}

/// The modules of a crate.
struct Modules(BTreeMap<Names, Module>);

impl Modules {
    fn read(src: &Path) -> Self {
        let module = |file: PathBuf| {
            let name = file.strip_prefix(src).unwrap().with_extension("");
            let names = name.iter().map(|name| name.to_str().unwrap().to_owned());
            let mut names: Names = names.collect();
            if matches!(names.last().map(|last| &**last), Some("mod" | "lib")) {
                names.pop();
            }
            let text = std::fs::read_to_string(file).unwrap();
            (names, Module::parse(&text))
        };
        Self(rust_files(src).into_iter().map(module).collect())
    }

    /// All dependencies between modules.
    fn arrows(&self) -> BTreeSet<(&Names, &Names)> {
        let mut arrows = BTreeSet::new();
        for (own, module) in &self.0 {
            for named in &module.named {
                let of = self.absolute(own, named).and_then(|it| self.home(&it, 0));
                if let Some(of) = of.filter(|of| *of != own && !of.is_empty()) {
                    arrows.insert((own, of));
                }
            }
        }
        arrows
    }

    /// `named` from the crate root, if it belongs to this crate.
    fn absolute(&self, own: &Names, named: &[String]) -> Option<Names> {
        let mut base = own.clone();
        let mut rest = named;
        match rest.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|first| first == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child
                if self
                    .0
                    .contains_key(&[&base[..], &[child.to_owned()]].concat()) => {}
            _ => return None,
        }
        Some([&base[..], rest].concat())
    }

    /// The module that defines what `names` leads to, through re-exports.
    fn home(&self, names: &[String], steps: usize) -> Option<&Names> {
        let mut ends = (0..=names.len()).rev();
        let (own, module) = ends.find_map(|end| self.0.get_key_value(&names[..end]))?;
        let rest = &names[own.len()..];
        let alias = rest.first().and_then(|item| module.aliases.get(item));
        match alias.and_then(|alias| self.absolute(own, alias)) {
            Some(alias) if steps < 8 => self.home(&[&alias[..], &rest[1..]].concat(), steps + 1),
            _ => Some(own),
        }
    }
}

/// The arrows that are part of a cycle, or between two cycles.
fn circle(mut arrows: BTreeSet<(&Names, &Names)>) -> Vec<String> {
    loop {
        let all = arrows.clone();
        let begins = |name: &Names| all.iter().any(|(from, _)| *from == name);
        let ends = |name: &Names| all.iter().any(|(_, to)| *to == name);
        arrows.retain(|(from, to)| begins(to) && ends(from));
        if arrows.len() == all.len() {
            break;
        }
    }
    let text = |(from, to): &(&Names, &Names)| format!("{} -> {}", from.join("::"), to.join("::"));
    arrows.iter().map(text).collect()
}
