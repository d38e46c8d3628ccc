//! What a command prints on stdout: for people or for programs.

use std::fmt::Display;
use std::io::Write as _;

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
