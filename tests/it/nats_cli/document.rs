//! The commands of a page, and what is shown of them.

/// A command.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: String,
    /// What it prints, where the page shows it.
    pub(super) shows: Option<String>,
}

/// The commands in the blocks of a page, in their order: every line of a block for a shell, and
/// those behind a prompt.
pub(super) fn entries(page: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (language, block) in blocks(page) {
        match language {
            "sh" => entries.extend(block.lines().map(|line| Entry {
                line: line.to_owned(),
                shows: None,
            })),
            "text" => {
                let whole = format!("\n{block}");
                let mut parts = whole.split("\n$ ");
                let before = parts.next().unwrap();
                assert_eq!(before, "", "shown, and nobody knows of which command");
                entries.extend(parts.map(|part| {
                    let (line, shows) = part.split_once('\n').unwrap();
                    Entry {
                        line: line.to_owned(),
                        shows: Some(shows.trim_end().to_owned()),
                    }
                }));
            }
            other => panic!("a block of `{other}`, which no test looks at:\n{block}"),
        }
    }
    entries
}

fn blocks(page: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = page.split("```").collect();
    let inside = parts.iter().skip(1).step_by(2);
    inside
        .map(|block| block.split_once('\n').unwrap())
        .collect()
}

/// The commands that the text names.
pub(super) fn named(page: &str) -> Vec<&str> {
    let text = page.split("```").step_by(2);
    let spans = text.flat_map(|text| text.split('`').skip(1).step_by(2));
    let is_command = |span: &&str| span.starts_with("nats ") || span.starts_with("headwater ");
    spans.filter(is_command).collect()
}

/// The words of a command line, as a shell has them; the page uses single quotes only.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}
