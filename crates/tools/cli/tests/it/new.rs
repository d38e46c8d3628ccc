//! `headwater new`: what it writes compiles, and passes its tests.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "an unexpected result fails the test, which says what did not run"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn repository() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    folder.canonicalize().unwrap()
}

fn new(folder: &Path, args: &[&str]) -> Output {
    let mut headwater = Command::new(env!("CARGO_BIN_EXE_headwater"));
    headwater.arg("new").args(args).current_dir(folder);
    headwater.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Cargo in `folder`, without the network and with the target folder of the repository: what it
/// already has compiled is compiled once.
fn cargo(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).arg("--offline").output().unwrap()
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo.args(args).current_dir(folder);
    // Variables about the package of this test would be a changed environment for build scripts.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&*name);
        }
    }
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().nth(3).expect("target/debug/deps/it-…");
    cargo.env("CARGO_TARGET_DIR", target);
    cargo
}

#[test]
fn a_standalone_service_compiles_and_passes_its_tests() {
    let folder = TempDir::new().unwrap();
    let clone = repository();
    let clone = clone.to_str().unwrap();
    let args = ["gift-cards", "--standalone", "--headwater-path", clone];
    let written = new(folder.path(), &args);
    assert!(written.status.success(), "{written:?}");
    assert!(text(&written.stdout).contains("cargo test"), "{written:?}");
    let tested = cargo(&folder.path().join("gift_cards"), &["test"]);
    let printed = text(&tested.stdout) + &text(&tested.stderr);
    assert!(tested.status.success(), "{printed}");
    let passed = "test tests::a_gift_card_that_is_sent_again_is_one_event ... ok";
    assert!(printed.contains(passed), "{printed}");
}

/// The home of cargo with the crates that it has, and with no clones.
fn home() -> TempDir {
    let own = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let own =
        own.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cargo"));
    let home = TempDir::new().unwrap();
    for entry in fs::read_dir(own).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "git" {
            let to = home.path().join(entry.file_name());
            std::os::unix::fs::symlink(entry.path(), to).unwrap();
        }
    }
    home
}

/// The packages without a source but `own`, which are in a clone, from git.
fn from_git(lock: &str, own: &str, source: &str) -> String {
    let packages = lock.split("[[package]]\n").map(|package| {
        let is_of_clone = package.starts_with("name = ")
            && !package.contains("\nsource = ")
            && !package.starts_with(&format!("name = \"{own}\""));
        if !is_of_clone {
            return package.to_owned();
        }
        let mut lines: Vec<&str> = package.lines().collect();
        let source = format!("source = \"{source}\"");
        lines.insert(2, &source);
        lines.join("\n") + "\n\n"
    });
    packages.collect::<Vec<_>>().join("[[package]]\n")
}

/// From a commit of a copy of the repository, on this machine. That the code compiles is another
/// test's.
#[test]
fn a_standalone_service_takes_the_chassis_from_git() {
    let clone = copy();
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        for setting in [
            "user.name=test",
            "user.email=test@example.com",
            "commit.gpgsign=false",
        ] {
            git.args(["-c", setting]);
        }
        let done = git.args(args).current_dir(clone.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        text(&done.stdout).trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message=a copy"]);
    let commit = git(&["rev-parse", "HEAD"]);
    let url = format!("file://{}", clone.path().display());
    let write = |from: &[&str]| {
        let folder = TempDir::new().unwrap();
        let args = [&["gift-cards", "--standalone"], from].concat();
        let written = new(folder.path(), &args);
        assert!(written.status.success(), "{written:?}");
        folder
    };
    // The versions that are on this machine.
    let local = write(&["--headwater-path", clone.path().to_str().unwrap()]);
    let local = local.path().join("gift_cards");
    let listed = cargo(&local, &["tree"]);
    assert!(listed.status.success(), "{listed:?}");
    let lock = fs::read_to_string(local.join("Cargo.lock")).unwrap();

    let remote = write(&["--headwater-git", &url, "--headwater-rev", &commit]);
    let remote = remote.path().join("gift_cards");
    let source = format!("git+{url}?rev={commit}#{commit}");
    let lock = from_git(&lock, "gift_cards", &source);
    fs::write(remote.join("Cargo.lock"), lock).unwrap();
    let home = home();
    let mut fetch = command(&remote, &["tree", "--locked", "--prefix=none"]);
    fetch.env("CARGO_HOME", home.path());
    // No registry is asked.
    fetch.env("CARGO_HTTP_PROXY", "127.0.0.1:1");
    let fetched = fetch.output().unwrap();
    assert!(fetched.status.success(), "{}", text(&fetched.stderr));
    let listed = text(&fetched.stdout);
    let chassis = listed.lines().filter(|line| line.starts_with("headwater"));
    let source = format!("({url}?rev={commit}#");
    let (right, wrong): (Vec<_>, Vec<_>) = chassis.partition(|line| line.contains(&source));
    assert!(right.len() > 10 && wrong.is_empty(), "{listed}");
}

#[test]
fn a_name_that_cannot_be_used_and_a_folder_that_is_there_are_refused() {
    let folder = TempDir::new().unwrap();
    let refused = |args: &[&str], code: i32, why: &str| {
        let output = new(folder.path(), args);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(text(&output.stderr).contains(why), "{output:?}");
    };
    refused(&["Reviews", "--standalone"], 2, "lower-case letters");
    refused(&["types", "--standalone"], 2, "has another meaning");
    refused(&["reviews"], 1, "add --standalone");
    let nowhere = ["reviews", "--standalone", "--headwater-path", "/nowhere"];
    refused(&nowhere, 1, "name one with --headwater-path");
    fs::create_dir(folder.path().join("reviews")).unwrap();
    refused(&["reviews", "--standalone"], 1, "choose another name");
    fs::write(folder.path().join("Cargo.toml"), "").unwrap();
    refused(&["reviews", "--standalone"], 1, "run this outside of it");
    let shop = repository();
    let output = new(&shop, &["users"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("there is a source users"));
    let output = new(&shop, &["client"]);
    assert!(text(&output.stderr).contains("has a package client"));
}

/// The files that git tracks or would track.
fn files(folder: &Path) -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = git.current_dir(folder).output().unwrap();
    let listed = text(&listed.stdout);
    let is_there = |file: &&str| folder.join(file).is_file();
    listed.lines().filter(is_there).map(str::to_owned).collect()
}

/// A copy of the repository, without what git ignores.
fn copy() -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in files(&repository()) {
        let to = copy.path().join(&file);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(repository().join(&file), to).unwrap();
    }
    copy
}

/// Runs a checker of the files, if it is installed; `variable`, set to 1, says that it must be.
fn check(checker: &mut Command, variable: &str) {
    match checker.output() {
        Ok(output) => assert!(output.status.success(), "{checker:?}: {output:?}"),
        Err(error) if std::env::var_os(variable).is_none_or(|value| value != "1") => {
            eprintln!("DID NOT RUN: {checker:?}: {error}");
        }
        Err(error) => panic!("{checker:?}: {error}"),
    }
}

#[test]
fn a_service_of_the_shop_changes_no_existing_file_but_those_of_deploy_that_list_it() {
    let copy = copy();
    let root = copy.path();
    let written = new(&root.join("crates"), &["reviews"]);
    assert!(written.status.success(), "{written:?}");
    let listed = shop::deploy::files(root).unwrap();
    for (path, text) in &listed {
        fs::write(root.join(path), text).unwrap();
    }
    assert!(
        cargo(root, &["metadata", "--format-version=1"])
            .status
            .success()
    );

    let is_changed = |file: &String| {
        fs::read(repository().join(file)).unwrap() != fs::read(root.join(file)).unwrap()
    };
    let changed: BTreeSet<String> = files(&repository())
        .into_iter()
        .filter(is_changed)
        .collect();
    let (deploy, other): (Vec<_>, Vec<_>) =
        changed.iter().partition(|it| it.starts_with("deploy/"));
    // The author adds the event to contract.txt, and the arrows to ARCHITECTURE.md.
    assert_eq!(other, ["Cargo.lock"]);
    let lists = [
        "accounts.conf",
        "plan.json",
        "compose.yaml",
        "prometheus.yml",
        "install.sh",
    ];
    for list in lists {
        assert!(
            deploy.iter().any(|file| file.ends_with(list)),
            "{list}: {deploy:?}"
        );
    }

    let plan = fs::read(root.join("deploy/nats/plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plan).unwrap();
    assert_eq!(
        plan["sources"],
        serde_json::json!(["users", "products", "orders", "reviews"])
    );
    let nats = root.join("deploy/nats");
    check(
        Command::new("sh").arg("secrets.sh").current_dir(&nats),
        "CI",
    );
    assert!(nats.join("passwords/reviews").exists());
    let server = broker::find(&|_| {}).unwrap();
    let mut server = Command::new(server.path);
    check(
        server
            .args(["-t", "-c", "accounts.conf"])
            .current_dir(&nats),
        "CI",
    );
    for script in ["systemd/install.sh", "systemd/setup", "deb/build"] {
        check(
            Command::new("sh")
                .arg("-n")
                .arg(root.join("deploy").join(script)),
            "CI",
        );
    }
    for script in ["build", "check"] {
        check(
            Command::new("bash")
                .arg("-n")
                .arg(root.join("deploy/docker").join(script)),
            "CI",
        );
    }
    let compose = root.join("deploy/compose.yaml");
    let mut docker = Command::new("docker-compose");
    let docker = docker
        .arg("--file")
        .arg(compose)
        .args(["config", "--quiet"]);
    check(docker, "HEADWATER_REQUIRE_DOCKER");
    let units = root.join("deploy/systemd/units");
    let unit = units.join("headwater-reviews.service");
    let text = fs::read_to_string(&unit).unwrap();
    // Not installed here.
    fs::write(
        &unit,
        text.replace("/usr/local/bin/headwater-reviews", "/bin/true"),
    )
    .unwrap();
    let mut systemd = Command::new("systemd-analyze");
    systemd.args(["verify", "--man=no", "--recursive-errors=no"]);
    let ends = [".service", ".socket", "-admin.socket"];
    systemd.args(ends.map(|end| units.join(format!("headwater-reviews{end}"))));
    check(
        systemd.env("SYSTEMD_UNIT_PATH", format!("{}:", units.display())),
        "HEADWATER_REQUIRE_SYSTEMD",
    );
}
