//! What `just install` installs, and what it leaves alone.

use std::fs;
use std::path::{Path, PathBuf};

use e2e::installed::{install, install_with, repository};
use e2e::programs;
use tempfile::TempDir;

/// All files below a folder, by their path in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, &mut found);
    let inside = |path: &PathBuf| path.strip_prefix(folder).unwrap().to_owned();
    let mut found: Vec<_> = found.iter().map(inside).collect();
    found.sort();
    found
}

#[test]
fn installing_again_keeps_the_configuration_and_uninstalling_leaves_it() {
    let folder = TempDir::new().unwrap();
    let programs = programs();
    let args = ["install", "/usr/local", programs.to_str().unwrap()];
    install(folder.path(), &args);
    let first = files(folder.path());
    for expected in [
        "etc/headwater/headwater.env",
        "usr/local/bin/headwater",
        "usr/local/bin/headwater-purchases",
        "usr/local/bin/shop-import",
        "usr/local/lib/headwater/plan.json",
        "usr/local/share/man/man1/headwater.1",
        "usr/local/share/bash-completion/completions/headwater",
        "usr/local/lib/systemd/system/headwater-purchases.socket",
        "usr/local/lib/systemd/system/headwater.target",
    ] {
        assert!(first.contains(&expected.into()), "{expected}: {first:#?}");
    }

    let settings = folder.path().join("etc/headwater/headwater.env");
    fs::write(&settings, "RUST_LOG=debug\n").unwrap();
    let said = install(folder.path(), &args);
    assert!(said.contains("kept "), "{said}");
    assert_eq!(fs::read_to_string(&settings).unwrap(), "RUST_LOG=debug\n");
    assert_eq!(files(folder.path()), first);

    install(folder.path(), &["uninstall", "/usr/local"]);
    let left = files(folder.path());
    let services = shop::services(&repository()).unwrap().len();
    assert!(
        left.iter().all(|file| file.starts_with("etc/headwater")) && left.len() == 3 + services,
        "{left:#?}"
    );
}

#[test]
fn another_prefix_is_all_that_the_units_know() {
    let folder = TempDir::new().unwrap();
    let programs = programs();
    install(
        folder.path(),
        &["install", "/opt/shop", programs.to_str().unwrap()],
    );
    let units = folder.path().join("etc/systemd/system");
    for file in files(&units) {
        let text = fs::read_to_string(units.join(&file)).unwrap();
        assert!(!text.contains("/usr/local"), "{}: {text}", file.display());
    }
    let unit = fs::read_to_string(units.join("headwater-users.service")).unwrap();
    assert!(
        unit.contains("ExecStart=/opt/shop/bin/headwater-users\n"),
        "{unit}"
    );
    assert!(folder.path().join("opt/shop/bin/headwater-users").is_file());
}

/// The targets of the links in a Markdown text, without those outside the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let rests = text.split("](").skip(1);
    let targets = rests.filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://"))
}

/// The anchor that GitHub makes from a heading.
fn anchor(heading: &str) -> String {
    let plain = heading.trim().to_lowercase().replace(' ', "-");
    plain
        .chars()
        .filter(|c| c.is_alphanumeric() || "-_".contains(*c))
        .collect()
}

#[test]
fn installed_documents_lead_somewhere_and_so_does_every_alert() {
    let folder = TempDir::new().unwrap();
    let programs = programs();
    install(
        folder.path(),
        &["install", "/usr", programs.to_str().unwrap()],
    );
    let documents = folder.path().join("usr/share/doc/headwater");
    for file in files(&documents) {
        if file.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let text = fs::read_to_string(documents.join(&file)).unwrap();
        for target in links(&text) {
            let path = target.split('#').next().unwrap();
            let there = documents.join(&file).parent().unwrap().join(path);
            assert!(
                path.is_empty() || there.exists(),
                "{}: {target}",
                file.display()
            );
        }
    }

    let alerts = fs::read_to_string(documents.join("deploy/prometheus/alerts.yml")).unwrap();
    let addresses: Vec<_> = alerts.split("runbook: file://").skip(1).collect();
    assert_eq!(addresses.len(), alerts.matches("- alert: ").count());
    for address in addresses {
        let address = address.lines().next().unwrap();
        let (path, wanted) = address.split_once('#').unwrap();
        let path = folder.path().join(path.trim_start_matches('/'));
        let text = fs::read_to_string(&path).unwrap();
        let headings = text.lines().filter(|line| line.starts_with('#'));
        let mut anchors = headings.map(|line| anchor(line.trim_start_matches('#')));
        assert!(anchors.any(|anchor| anchor == wanted), "{address}");
    }
}

#[test]
fn an_upgrade_is_the_same_everywhere() {
    let documents = ["docs", "deploy/systemd", "deploy/docker"];
    let files = ["operations.md", "README.md", "README.md"];
    let steps = documents.iter().zip(files).map(|(folder, file)| {
        let path = repository().join(folder).join(file);
        let text = fs::read_to_string(path).unwrap();
        let (_, upgrade) = text.split_once("\n## Upgrade\n\n").unwrap();
        upgrade.split_once("\n\n").unwrap().0.to_owned()
    });
    let steps: Vec<_> = steps.collect();
    assert!(steps[0].starts_with("1. ") && steps[0].contains("\n6. "));
    assert!(steps.iter().all(|of| *of == steps[0]), "{steps:#?}");
}

#[test]
fn installing_compiles_what_any_release_build_compiles() {
    for file in [
        "justfile",
        "deploy/systemd/README.md",
        "deploy/docker/build",
    ] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        for line in text.lines() {
            // Another set of packages has other features of their dependencies.
            let is_build = line.contains("cargo build") || line.contains("flags+=(");
            assert!(!is_build || !line.contains("--package"), "{file}: {line}");
        }
    }
}

#[test]
fn an_open_broker_is_a_choice() {
    let include = |broker: &str| {
        let folder = TempDir::new().unwrap();
        let programs = programs();
        let args = ["install", "/usr/local", programs.to_str().unwrap()];
        install_with(folder.path(), &args, &[("BROKER", broker)]);
        let text = fs::read_to_string(folder.path().join("etc/headwater/nats.conf")).unwrap();
        text.lines().any(|line| line.starts_with("include "))
    };
    assert!(include(""));
    assert!(!include("open"));
}

/// Variables that the units set.
const IN_UNITS: [&str; 2] = ["HEADWATER_DATABASE", "HEADWATER_LISTEN"];

#[test]
fn the_samples_list_every_setting_with_its_default() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/etc");
    let sample = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let common = sample("headwater.env");
    let services = [
        (
            "users.env",
            headwater::command::<headwater::Config>(&users::ABOUT),
        ),
        (
            "products.env",
            headwater::command::<products::Config>(&products::ABOUT),
        ),
        (
            "orders.env",
            headwater::command::<orders::Config>(&orders::ABOUT),
        ),
        (
            "purchases.env",
            headwater::command::<purchases::Config>(&purchases::ABOUT),
        ),
    ];
    for (name, command) in services {
        let text = format!("{common}{}", sample(name));
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.trim_start_matches('#'))
            .collect();
        for arg in command.get_arguments() {
            let Some(variable) = arg.get_env().and_then(|name| name.to_str()) else {
                continue;
            };
            if IN_UNITS.contains(&variable) || variable == "HEADWATER_LOG_FILTER_FILE" {
                assert!(text.contains(variable), "{variable} is not in {name}");
                continue;
            }
            let default = arg.get_default_values().first();
            let default = default.and_then(|value| value.to_str()).unwrap_or_default();
            let expected = format!("{variable}={default}");
            assert!(
                lines.contains(&expected.as_str()),
                "`#{expected}` is neither in headwater.env nor in {name}"
            );
        }
    }
}
