//! What the compiler says about mistakes of authors: `mistakes/*.rs`, and what is printed about them,
//! `mistakes/*.txt`, which `docs/adding-a-service.md` shows. With `UPDATE=1`, the texts are written.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The crate `name`, as it was compiled for this test.
fn compiled(folder: &Path, name: &str) -> Vec<PathBuf> {
    let prefix = format!("lib{name}-");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let is_it = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let is_of = stem.is_some_and(|stem| stem.starts_with(&prefix));
        is_of && path.extension().is_some_and(|end| end == "rlib")
    };
    let mut all: Vec<_> = entries.map(|entry| entry.path()).filter(is_it).collect();
    // The newest first: others are of other features, or old.
    all.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().modified().unwrap()));
    all
}

/// The first error, without the code that it shows.
fn first(text: &str) -> String {
    let lines = text.lines().map(str::trim_start);
    let mut lines = lines.skip_while(|line| !line.starts_with("error["));
    let mut first = lines.next().expect("an error").to_owned();
    // Only a name is printed of an impl whose file is not found from the working directory.
    let is_name = |line: &str| line.starts_with("= note: `");
    let is_said = |line: &&str| {
        let is_said = ["= ", "found "].iter().any(|start| line.starts_with(start));
        is_said && !is_name(line)
    };
    for line in lines
        .take_while(|line| !line.starts_with("error"))
        .filter(is_said)
    {
        first = first + "\n" + line;
    }
    first + "\n"
}

/// What the compiler prints about `file`.
fn errors(file: &Path) -> String {
    let own = std::env::current_exe().unwrap();
    let deps = own.parent().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    for headwater in compiled(deps, "headwater") {
        for prost in compiled(deps, "prost") {
            let mut rustc = Command::new("rustc");
            rustc.args(["--edition=2024", "--crate-type=lib", "--emit=metadata"]);
            rustc.arg("--out-dir").arg(temporary.path());
            rustc
                .arg("-L")
                .arg(format!("dependency={}", deps.display()));
            for (name, path) in [("headwater", &headwater), ("prost", &prost)] {
                let found = format!("{name}={}", path.display());
                rustc.arg("--extern").arg(found);
            }
            let output = rustc.arg("--cap-lints=allow").arg(file).output().unwrap();
            assert!(!output.status.success(), "{} compiles", file.display());
            let text = String::from_utf8(output.stderr).unwrap();
            // Crates that do not fit together.
            if ["E0460", "E0463", "E0464"]
                .iter()
                .any(|code| text.contains(code))
            {
                continue;
            }
            return first(&text);
        }
    }
    panic!("no compiled crates in {} fit together", deps.display());
}

#[test]
fn the_compiler_says_what_to_do_about_mistakes_of_authors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/mistakes");
    for name in ["not_an_event", "not_a_projection", "writes_in_a_read"] {
        let printed = errors(&folder.join(name).with_extension("rs"));
        let text = folder.join(name).with_extension("txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&text, &printed).unwrap();
        }
        assert_eq!(printed, fs::read_to_string(&text).unwrap(), "{name}");
    }
}
