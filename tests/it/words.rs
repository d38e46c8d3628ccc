//! The words of this project: those that made readers stumble do not come back.

use crate::tidy::{files, read, root};

/// What readers stumbled over, and what to write instead.
const STUMBLES: [(&str, &str); 29] = [
    ("a person must act", "an operator must act"),
    ("anew", "again, or the verb: rebuild, reload, recreate"),
    ("anybody", "the client, the operator, any process"),
    ("are told", "receive, see, are logged"),
    ("bring in", "import"),
    ("brings in", "imports"),
    ("brought in", "imported"),
    ("events a second", "events per second"),
    ("folded", "applied, or rebuilt"),
    ("fold anew", "rebuild"),
    ("goes on by itself", "resumes automatically"),
    ("held up", "blocked, delayed"),
    ("is told", "receives, sees, is logged"),
    ("mend", "fix, repair"),
    ("mended", "fixed, repaired"),
    ("mends", "fixes, repairs"),
    ("once more", "again"),
    ("requests a second", "requests per second"),
    ("said of", "name what was said"),
    ("so many", "give the number, or: that many"),
    ("somebody", "the client, the operator, another process"),
    ("stand still", "stop"),
    ("stands still", "has stopped"),
    ("stood still", "stopped"),
    ("the course note", "our own words"),
    ("told of", "name what is reported, and where"),
    ("was told", "received, saw, was configured with"),
    ("what there is", "name it"),
    ("whoever", "the client, the caller, the operator"),
];

#[test]
fn no_text_has_the_words_that_readers_stumbled_over() {
    let endings = [
        ".conf", ".env", ".html", ".md", ".proto", ".rs", ".service", ".yaml", ".yml",
    ];
    let mut found = Vec::new();
    for file in endings.iter().flat_map(|ending| files(ending)) {
        // A migration is known by its digest.
        if file.ends_with(file!()) || file.iter().any(|part| part == "migrations") {
            continue;
        }
        for (number, line) in read(&file).lines().enumerate() {
            let line = line.to_lowercase();
            let words = STUMBLES.iter().filter(|(words, _)| has(&line, words));
            let file = file.strip_prefix(root()).unwrap().display();
            found.extend(words.map(|(words, plain)| {
                format!("{file}:{}: \"{words}\"; write: {plain}", number + 1)
            }));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Whether `line` has these words, and not as a part of others or of an identifier.
fn has(line: &str, words: &str) -> bool {
    let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(words).any(|(at, _)| {
        is_edge(line[..at].chars().next_back()) && is_edge(line[at + words.len()..].chars().next())
    })
}

#[test]
fn the_front_page_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= 120, "README.md has {lines} lines");
}
