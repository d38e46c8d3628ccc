//! What a command prints on stdout: for people or for programs.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
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

/// Prints a command's result. Errors when stdout is closed or full.
pub(crate) fn print(result: &(impl Display + Serialize), format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Text => result.to_string(),
        Format::Json => serde_json::to_string(result).context("encode the result")?,
    };
    // Not `println!`, which panics when the reader of a pipe has gone.
    writeln!(std::io::stdout(), "{text}").context("write to stdout")
}

/// Reads a flag's duration.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Files, services and streams are not trusted with the operator's terminal: control characters are escaped.
pub(crate) fn printable(text: &str) -> String {
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
