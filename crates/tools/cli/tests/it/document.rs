//! The commands in `docs/nats-cli.md`, `docs/cli.md` and `docs/tutorial.md`.

use clap::Parser as _;
use cli::Cli;

/// The documents, and how many commands each has at least.
const DOCUMENTS: [(&str, usize); 3] = [
    (include_str!("../../../../../docs/nats-cli.md"), 12),
    (include_str!("../../../../../docs/cli.md"), 12),
    (include_str!("../../../../../docs/tutorial.md"), 6),
];

/// Splits a command line like a shell; the documents use single quotes only.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            c => words.last_mut().expect("one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The command lines of the tool in a document: in its blocks, after a prompt, in its text, and
/// after `--translate`.
fn commands(document: &str) -> Vec<String> {
    let blocks = document.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let prompts = document.lines().filter_map(|line| line.strip_prefix("$ "));
    let inline = document.split('`');
    let translated = document.split("--translate '").skip(1);
    let translated = translated.filter_map(|rest| rest.split('\'').next());
    blocks
        .flat_map(str::lines)
        .chain(prompts)
        .chain(inline)
        .chain(translated)
        .filter(|line| line.starts_with("headwater ") && !line.contains('\n'))
        // The rest is a redirection of the shell.
        .filter_map(|line| {
            let line = line.split(" > ").next()?.split(" < ").next()?;
            line.split(" # ").next()
        })
        .map(|line| line.replace("{{Subject}}", "orders.v1.placed.43"))
        .collect()
}

#[test]
fn every_command_of_the_tool_in_the_documents_can_be_followed() {
    for (document, least) in DOCUMENTS {
        let commands = commands(document);
        for line in &commands {
            // The text also mentions commands without their arguments, such as `headwater tail`.
            if let Err(error) = Cli::try_parse_from(words(line)) {
                let needs = error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
                assert!(needs && words(line).len() == 2, "{line}: {error}");
            }
        }
        assert!(commands.len() >= least, "only {commands:?} were found");
    }
}
