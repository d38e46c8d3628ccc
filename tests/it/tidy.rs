//! Rules of this repository that a program can check.

use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files that git tracks or would track, below the root.
pub(crate) fn files(ending: &str) -> Vec<PathBuf> {
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

pub(crate) fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

/// The output of a cargo command about the workspace.
fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    let run = command.args(args).arg("--offline").current_dir(root());
    let output = run.output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `cargo build --release --bins`, as in `just install`, packages and images, builds only these
/// programs, and no test dependencies.
#[test]
fn what_is_shipped_has_no_features_of_tests() {
    let features = |edges| {
        let tree = [
            "tree",
            "--workspace",
            "--edges",
            edges,
            "--format",
            "{p} {f}",
        ];
        cargo(&tree)
    };
    let (shipped, tested) = (features("no-dev"), features("all"));
    for feature in ["crash-points", "testing"] {
        let has = |tree: &str| {
            tree.lines().any(|line| {
                let features = line.rsplit_once(") ").map_or("", |(_, features)| features);
                line.contains("headwater") && features.contains(feature)
            })
        };
        assert!(!has(&shipped), "{feature}");
        assert!(has(&tested), "tests need {feature}");
    }
}

#[test]
fn entry_points_are_short() {
    for main in files("src/main.rs") {
        let lines = read(&main).lines().count();
        assert!(lines <= 15, "{} has {lines} lines", main.display());
    }
}

/// `docs/api` lists the public API; CI compares it with the code.
#[test]
fn no_public_item_names_anyhow() {
    for list in files(".txt") {
        if list
            .parent()
            .is_some_and(|folder| folder.ends_with("docs/api"))
        {
            let named = read(&list);
            let named = named.lines().find(|line| line.contains("anyhow"));
            assert_eq!(named, None, "{}", list.display());
        }
    }
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    // Put together here, so that this file does not break the rule itself.
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

/// `package::module::test` is in that module's file.
#[test]
fn every_test_that_a_document_names_exists() {
    let code: Vec<_> = files(".rs").into_iter().map(|it| (read(&it), it)).collect();
    for (document, least) in [("docs/guarantees.md", 20), ("docs/styles.md", 15)] {
        let text = read(&root().join(document));
        let mut named = 0;
        for path in text.split('`').skip(1).step_by(2) {
            let (modules, name) = path.rsplit_once("::").unwrap_or(("", path));
            if name.matches('_').count() < 4 || name.contains('{') {
                continue;
            }
            let file = match modules.split_once("::") {
                Some(("e2e", module)) => format!("tests/it/{module}.rs"),
                Some((package, module)) => format!("{package}/tests/it/{module}.rs"),
                None => String::new(),
            };
            let file = file.replace("::", "/");
            // A macro generates several tests: `name: "crash point",`.
            let definitions = [format!("fn {name}("), format!(" {name}: ")];
            let is_there = code.iter().any(|(text, path)| {
                path.ends_with(&file) && definitions.iter().any(|it| text.contains(it))
            });
            assert!(is_there, "{document}: there is no test {path}");
            named += 1;
        }
        assert!(named >= least, "{document} names only {named} tests");
    }
}

/// Whether `code` has a function, a constant, a field or a variant of this name.
fn defines(code: &str, name: &str) -> bool {
    let before = ["fn ", "const ", "pub ", ") ", "    "];
    before
        .iter()
        .any(|before| code.contains(&format!("{before}{name}")))
}

/// `Type::member`, if the type is one of this repository, and `value.method(…)`. The changelog may
/// name old ones.
#[test]
fn every_member_that_a_document_names_exists() {
    let code: Vec<String> = files(".rs").iter().map(|file| read(file)).collect();
    let has = |words: String| code.iter().any(|file| file.contains(&words));
    let is_edge = |c: char| !c.is_alphanumeric() && c != '_';
    let mut named = 0;
    for document in files(".md") {
        let text = read(&document);
        let prose = text.split("```").step_by(2).flat_map(str::lines);
        let prose = prose.filter(|_| !document.ends_with("CHANGELOG.md"));
        for span in prose.flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let missing = format!("{}: there is no {span}", document.display());
            for (at, _) in span.match_indices("::") {
                let of = span[..at].rsplit(is_edge).next().unwrap();
                let name = span[at + 2..].split(is_edge).next().unwrap();
                if !of.starts_with(char::is_uppercase) {
                    continue;
                }
                let kinds = ["struct", "enum", "trait"].map(|kind| has(format!("{kind} {of}")));
                let mut files = code.iter().filter(|file| file.contains(of));
                let is_there = files.any(|file| defines(file, name));
                assert!(is_there || !kinds.contains(&true), "{missing}");
                named += 1;
            }
            for (at, _) in span.match_indices('(') {
                let name = span[..at].rsplit(is_edge).next().unwrap();
                let is_method = span[..at].ends_with(&format!(".{name}"));
                let is_there = has(format!("fn {name}(")) || has(format!("fn {name}<"));
                assert!(!is_method || is_there, "{missing}");
            }
        }
    }
    assert!(named > 20, "only {named} members are named");
}

/// A how-to, and the package with the code that it shows.
#[test]
fn the_how_tos_show_what_their_examples_have() {
    // What the compiler says about mistakes is compared there.
    let mistakes = "crates/chassis/headwater/tests/it/mistakes/";
    let service = ["examples/reviews/", "examples/hello-event/", mistakes];
    let how_tos: [(&str, &[&str]); 4] = [
        ("adding-a-service", &service),
        ("adding-a-projection", &["examples/bestsellers/"]),
        ("adding-an-effect", &["examples/webhook/"]),
        ("changing-an-event", &["examples/two-versions/"]),
    ];
    for (how_to, folders) in how_tos {
        let is_part = |file: &PathBuf| {
            let mut folders = folders.iter();
            folders.any(|folder| file.starts_with(root().join(folder)))
        };
        let files: Vec<_> = files("").into_iter().filter(is_part).collect();
        // Indentation does not matter.
        let plain = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
        let texts: Vec<_> = files.iter().map(|file| plain(&read(file))).collect();
        let text = read(&root().join(format!("docs/{how_to}.md")));
        let shown: Vec<&str> = text.split("```").skip(1).step_by(2).collect();
        assert!(shown.len() >= 4, "{how_to}: {}", shown.len());
        for block in shown {
            let (language, code) = block.split_once('\n').unwrap();
            // Commands; what the gate says is compared in `shop-events`.
            if matches!(language, "sh" | "console") {
                continue;
            }
            let is_there = texts
                .iter()
                .any(|text| text.contains(plain(code).trim_end()));
            assert!(is_there, "{how_to}.md, not in {folders:?}:\n{code}");
        }
    }
}

#[test]
fn every_limit_is_in_the_file_that_the_architecture_names() {
    let text = read(&root().join("ARCHITECTURE.md"));
    let tables = text.split("| limit | name | file |").skip(1);
    let rows = tables.flat_map(|table| {
        let rows = table.lines().skip(2);
        rows.take_while(|row| row.starts_with('|'))
    });
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [_, wanted, files] = cells[..] else {
            panic!("three columns: {row}");
        };
        let files = files
            .split("](")
            .skip(1)
            .filter_map(|it| it.split(')').next());
        let code: String = files.map(|file| read(&root().join(file))).collect();
        for name in wanted.split('`').skip(1).step_by(2) {
            // The name of a flag may be that of its field.
            let flag = name.strip_prefix("--").unwrap_or("");
            let field = flag.replace('-', "_");
            let name = name.rsplit("::").next().unwrap();
            let names = [name, flag, &field].into_iter().filter(|it| !it.is_empty());
            let mut is_there = names.map(|name| code.contains(name));
            assert!(is_there.any(|it| it), "there is no {name} there: {row}");
            count += 1;
        }
    }
    assert!(count > 100, "only {count} limits are named");
}
