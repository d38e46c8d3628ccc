//! The commands of a page and the output that it shows.

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) line: String,
    /// The output that the page shows, if any.
    pub(super) shows: Option<String>,
}

/// The commands of a page, in order: every line of a shell block, and the lines after a prompt.
pub(super) fn entries(page: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (language, block) in blocks(page) {
        match language {
            "sh" => entries.extend(block.lines().map(|line| Entry {
                line: line.to_owned(),
                shows: None,
            })),
            "text" => {
                let text = format!("\n{block}");
                let mut parts = text.split("\n$ ");
                let before = parts.next().unwrap();
                assert_eq!(before, "", "output without a command");
                entries.extend(parts.map(|part| {
                    let (line, shows) = part.split_once('\n').unwrap();
                    Entry {
                        line: line.to_owned(),
                        shows: Some(shows.trim_end().to_owned()),
                    }
                }));
            }
            other => panic!("a block of `{other}`, which this test does not know:\n{block}"),
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

/// The commands that the text mentions.
pub(super) fn named(page: &str) -> Vec<&str> {
    let text = page.split("```").step_by(2);
    let spans = text.flat_map(|text| text.split('`').skip(1).step_by(2));
    let is_command = |span: &&str| span.starts_with("nats ") || span.starts_with("headwater ");
    spans.filter(is_command).collect()
}

/// The words of a command line, as a shell splits it; the page uses only single quotes.
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
