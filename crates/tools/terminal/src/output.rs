//! What a command prints on stdout: for people or for programs.

use std::fmt::{Display, Write as _};
use std::io::{ErrorKind, Write as _};
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

/// Reads a flag's duration: seconds, or numbers with units, `1m30s`, as the NATS CLI has them.
pub fn duration(text: &str) -> Result<Duration, String> {
    const WANTED: &str =
        "must be a number of seconds, or numbers with units, such as 500ms or 1m30s";
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => of_units(text).ok_or(WANTED)?,
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn of_units(text: &str) -> Option<f64> {
    let (mut sum, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * unit;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
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
    fn durations_are_seconds_or_have_units() {
        let millis = |text| duration(text).map(|read| read.as_millis());
        let read = ["5", "0.5", "5s", "250ms", "1m30s", "2h", "1d"].map(millis);
        let expected = [5000, 500, 5000, 250, 90_000, 7_200_000, 86_400_000];
        assert_eq!(read, expected.map(Ok));
        for bad in ["", "s", "5x", "5m3", "-1", "-1s", "1e400", "soon", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("né\x1b[2J\nx"), "né\\u{1b}[2J\\nx");
    }
}
