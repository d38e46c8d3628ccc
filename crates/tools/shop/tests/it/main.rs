//! The files of `deploy/` that list services are as the list says.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

/// With `UPDATE=1`, writes them.
#[test]
fn the_files_of_deploy_list_every_service() {
    for (path, text) in shop::deploy::files(&root()).unwrap() {
        let file = root().join(&path);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &text).unwrap();
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        let differs = there.lines().zip(text.lines()).find(|(a, b)| a != b);
        assert!(
            there == text,
            "{path} does not list the services of crates/shop as it should: run `just deploy-files` \
             (UPDATE=1 cargo test -p shop); the first difference: {differs:?}"
        );
    }
}
