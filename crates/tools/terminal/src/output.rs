//! A command's result on stdout, as text or JSON.

use std::fmt::{Display, Write as _};
use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;
use clap::ValueEnum;
pub use headwater::telemetry::duration;
use serde::Serialize;

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for people
    #[default]
    Text,
    /// One JSON object
    Json,
}

/// Prints a command's result. Fails if stdout cannot be written; a closed pipe is fine.
pub fn print(result: &(impl Display + Serialize), format: Format) -> anyhow::Result<()> {
    match line(result, format) {
        Err(error) if is_closed(&error) => Ok(()),
        printed => printed,
    }
}

/// Prints one of several results, in JSON one object per line. A closed pipe is an error here,
/// which [`is_closed`] recognises: the caller should stop.
pub fn line(result: &(impl Display + Serialize), format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Text => result.to_string(),
        Format::Json => serde_json::to_string(result).context("encode the result")?,
    };
    // Not `println!`, which panics on a closed pipe.
    writeln!(std::io::stdout(), "{text}").context("write to stdout")
}

/// Prints a line on stderr. A failed write is ignored: the operator has closed stderr.
pub fn complain(program: &str, what: &str) {
    let _ = writeln!(std::io::stderr(), "{program}: {what}");
}

/// Whether to write to a terminal as to a file: without colours, bars and redrawing.
pub fn is_plain() -> bool {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    no_colour || std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Whether the error is that the reader of stdout has gone (`| head`).
pub fn is_closed(error: &anyhow::Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// Escapes control characters: files, services and streams must not control the operator's
/// terminal.
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
