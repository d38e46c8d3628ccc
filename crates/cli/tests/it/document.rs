//! The commands in `docs/nats-cli.md`, which a reader runs.

use clap::Parser as _;
use cli::Cli;

const DOCUMENT: &str = include_str!("../../../../docs/nats-cli.md");

/// The words of a command line, as a shell has them; the document uses single quotes only.
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

#[test]
fn every_command_of_the_tool_in_the_document_can_be_followed() {
    let blocks = DOCUMENT.split("```sh\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    let inline = DOCUMENT
        .split('`')
        .filter(|code| code.starts_with("headwater "));
    let translated = DOCUMENT.split("--translate '").skip(1);
    let translated = translated.filter_map(|rest| rest.split('\'').next());
    let lines = blocks.flat_map(str::lines).chain(inline).chain(translated);
    let mut followed = 0;
    for line in lines.filter(|line| line.starts_with("headwater ")) {
        let line = line.replace("{{Subject}}", "orders.v1.placed.43");
        // `headwater tail` names the command as a whole, which the text does, too.
        if let Err(error) = Cli::try_parse_from(words(&line)) {
            let needs = error.kind() == clap::error::ErrorKind::MissingRequiredArgument;
            assert!(needs && words(&line).len() == 2, "{line}: {error}");
        }
        followed += 1;
    }
    assert!(followed >= 12, "only {followed} commands were found");
}
