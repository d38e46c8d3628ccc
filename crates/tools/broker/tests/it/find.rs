use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use broker::{Error, SearchPaths, find_in};

use crate::support::{folder, nowhere, script};

const OLD: &str = "echo nats-server: v2.9.10";
const NEW: &str = "echo nats-server: v2.99.0";

fn reason_against(value: &Path, path: &Path) -> String {
    let cache = folder();
    let places = SearchPaths {
        nats_server: Some(value.into()),
        path: path.into(),
        ..nowhere(cache.path())
    };
    let error = find_in(&places, &|_| panic!("must not install")).unwrap_err();
    assert!(matches!(error, Error::Variable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&format!("NATS_SERVER is set to `{}`", value.display())),
        "{text}"
    );
    text
}

#[test]
fn a_wrong_nats_server_variable_is_an_error_that_says_so() {
    let bin = folder();
    // A good one on PATH must not be used instead.
    script(bin.path(), "nats-server", NEW);
    let other = script(bin.path(), "other", "echo hello");
    let old = script(bin.path(), "old", OLD);
    let failing = script(bin.path(), "failing", &format!("{NEW}; exit 3"));
    let plain = bin.path().join("plain");
    fs::write(&plain, "text").unwrap();

    let reason = |value: &Path| reason_against(value, bin.path());
    assert!(reason(Path::new("/nowhere/nats-server")).contains("cannot be run (No such file"));
    assert!(reason(&plain).contains("cannot be run (Permission denied"));
    assert!(reason(&other).contains("is not a nats-server"));
    assert!(reason(&failing).contains("is not a nats-server"));
    assert!(reason(&old).contains("is version 2.9.10, too old; set it to a nats-server >= 2.14.0"));
}

#[test]
fn the_variable_comes_before_path() {
    let (bin, cache) = (folder(), folder());
    script(bin.path(), "nats-server", NEW);
    let mine = script(bin.path(), "mine", "echo nats-server: v2.98.0");
    let places = SearchPaths {
        nats_server: Some(mine.clone().into()),
        path: bin.path().into(),
        ..nowhere(cache.path())
    };
    assert_eq!(find_in(&places, &|_| {}).unwrap().path, mine);
}

#[test]
fn a_server_on_path_that_is_too_old_or_not_executable_is_passed_over() {
    let (old, plain, new, cache) = (folder(), folder(), folder(), folder());
    script(old.path(), "nats-server", OLD);
    let not_executable = script(plain.path(), "nats-server", NEW);
    fs::set_permissions(not_executable, fs::Permissions::from_mode(0o644)).unwrap();
    let good = script(new.path(), "nats-server", NEW);
    let path = std::env::join_paths([old.path(), plain.path(), new.path()]).unwrap();
    let found = find_in(
        &SearchPaths {
            path,
            ..nowhere(cache.path())
        },
        &|_| panic!("must not install"),
    )
    .unwrap();
    assert_eq!(found.path, good);
    assert_eq!(found.version.to_string(), "2.99.0");
}

#[test]
fn where_nothing_works_the_error_lists_the_ways() {
    let cache = folder();
    let text = find_in(&nowhere(cache.path()), &|_| {})
        .unwrap_err()
        .to_string();
    for part in [
        "neither python3 nor pip",
        "set NATS_SERVER",
        "on PATH",
        "install python3 with pip",
        ">= 2.14.0",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_an_error_that_says_so() {
    let cache = folder();
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    let text = find_in(&nowhere(&file.join("headwater")), &|_| {})
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("cannot write to") && text.contains("XDG_CACHE_HOME"),
        "{text}"
    );
}
