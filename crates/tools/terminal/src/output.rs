//! What a command prints on stdout: for people or for programs.

use std::fmt::{Display, Write as _};
use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;
use clap::ValueEnum;
pub use headwater::telemetry::duration;
use serde::Serialize;

/// How to print the result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// Prints a command's result. Errors when stdout is full; that nobody reads it is none.
pub fn print(result: &(impl Display + Serialize), format: Format) -> anyhow::Result<()> {
    match line(result, format) {
        Err(error) if is_closed(&error) => Ok(()),
        printed => printed,
    }
}

/// Prints one result of many, in JSON one a line. Errors also when nobody reads it any more, for
/// [`is_closed`] to tell: no use in going on.
pub fn line(result: &(impl Display + Serialize), format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Text => result.to_string(),
        Format::Json => serde_json::to_string(result).context("encode the result")?,
    };
    // Not `println!`, which panics when the reader of a pipe has gone.
    writeln!(std::io::stdout(), "{text}").context("write to stdout")
}

/// A closed stderr leaves nobody to tell, so that a failed write is ignored.
pub fn complain(program: &str, what: &str) {
    let _ = writeln!(std::io::stderr(), "{program}: {what}");
}

/// Whether a terminal is to be written to as a file is: without colours, bars and redrawing.
pub fn is_plain() -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    no_colour || std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Whether the reader of our stdout has gone (`| head`).
pub fn is_closed(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Files, services and streams are not trusted with the operator's terminal: control characters are escaped.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        let written = if c.is_control() {
            write!(printable, "{}", c.escape_default())
        } else {
            printable.write_char(c)
        };
        written.expect("a String takes everything");
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("né\x1b[2J\nx"), "né\\u{1b}[2J\\nx");
    }
}
