//! House rules that a program can check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files that git knows or would know, below the root.
fn files(ending: &str) -> Vec<PathBuf> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    let files: Vec<PathBuf> = String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .filter(|file| file.ends_with(ending))
        .map(|file| root().join(file))
        .filter(|file| file.exists())
        .collect();
    assert!(!files.is_empty(), "git lists no {ending} files");
    files
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[test]
fn services_share_events_and_the_chassis_and_nothing_else() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let metadata = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let own_dependencies = |name: &str| -> BTreeSet<String> {
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages
            .iter()
            .find(|package| package["name"] == name)
            .unwrap();
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        dependencies
            .filter(|dependency| !dependency["path"].is_null() && dependency["kind"].is_null())
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let of = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    for service in ["users", "products", "orders", "purchases"] {
        assert_eq!(
            own_dependencies(service),
            of(&["shop-events", "headwater"]),
            "{service}"
        );
    }
    assert_eq!(
        own_dependencies("headwater"),
        of(&[]),
        "the chassis knows nothing of the shop"
    );
    assert_eq!(own_dependencies("shop-events"), of(&["headwater"]));
}

#[test]
fn entry_points_are_short() {
    for main in files("src/main.rs") {
        let lines = read(&main).lines().count();
        assert!(lines <= 15, "{} has {lines} lines", main.display());
    }
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    // Put together here, so that this file is not the first to break the rule.
    let words = [
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("HA", "CK:"),
        concat!("TO", "DO"),
    ];
    for file in files(".rs") {
        let text = read(&file);
        for word in words {
            assert!(!text.contains(word), "{word} in {}", file.display());
        }
    }
}

#[test]
fn every_link_in_the_documents_leads_somewhere() {
    for document in files(".md") {
        let text = read(&document);
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let there = document.parent().unwrap().join(path);
            assert!(there.exists(), "{} links to {target}", document.display());
        }
    }
}

#[test]
fn every_test_that_a_document_names_exists() {
    let tests: String = files(".rs").iter().map(|file| read(file)).collect();
    for (document, least) in [("docs/guarantees.md", 20), ("docs/styles.md", 15)] {
        let text = read(&root().join(document));
        let mut named = 0;
        for name in text.split('`').skip(1).step_by(2) {
            let Some(name) = name
                .rsplit("::")
                .next()
                .filter(|name| name.matches('_').count() >= 4 && !name.contains('{'))
            else {
                continue;
            };
            // A macro makes several of one shape: `name: "where it dies",`.
            assert!(
                tests.contains(&format!("fn {name}(")) || tests.contains(&format!(" {name}: ")),
                "{document}: there is no test {name}"
            );
            named += 1;
        }
        assert!(named >= least, "{document} names only {named} tests");
    }
}
