//! What `just install` puts where, and what it leaves alone.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use e2e::installed::{binaries, install};
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
    let programs = binaries();
    let args = ["install", "/usr/local", programs.to_str().unwrap()];
    install(folder.path(), &args);
    let first = files(folder.path());
    for expected in [
        "etc/headwater/headwater.env",
        "usr/local/bin/headwater",
        "usr/local/bin/headwater-purchases",
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
    assert!(
        left.iter().all(|file| file.starts_with("etc/headwater")) && left.len() == 7,
        "{left:#?}"
    );
}

#[test]
fn another_prefix_is_all_that_the_units_know() {
    let folder = TempDir::new().unwrap();
    let programs = binaries();
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

/// These are set in the units.
const IN_UNITS: [&str; 2] = ["HEADWATER_DATABASE", "HEADWATER_LISTEN"];

#[test]
fn the_samples_list_every_setting_with_its_default() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/etc");
    let sample = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let common = sample("headwater.env");
    let services = [
        ("users.env", users::Config::command()),
        ("products.env", products::Config::command()),
        ("orders.env", orders::Config::command()),
        ("purchases.env", purchases::Config::command()),
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
