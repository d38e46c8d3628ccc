//! Errors as objects, for programs: `-o json`.

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};

use clap::error::ErrorKind;
use serde::Serialize;

use crate::common::Unconfirmed;
use crate::import::InputError;
use crate::nats::{Misconfigured, Unreachable};
use crate::{Exit, output};

/// Why a command could not do what it was told.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorObject {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    what_to_do: Option<String>,
    exit_code: u8,
}

impl ErrorObject {
    pub(crate) fn new(error: impl Into<String>, what_to_do: Option<String>, exit: Exit) -> Self {
        Self {
            error: error.into(),
            what_to_do,
            exit_code: exit.code(),
        }
    }

    pub(crate) fn of(error: &anyhow::Error, exit: Exit) -> Self {
        let text = headwater::causes(error);
        // What these say ends with what to do.
        let is_advised =
            error.is::<Unreachable>() || error.is::<Misconfigured>() || error.is::<Unconfirmed>();
        match text.rsplit_once("; ") {
            Some((what, advice)) if is_advised => Self::new(what, Some(advice.to_owned()), exit),
            _ => Self::new(text, None, exit),
        }
    }

    /// What is wrong with a command line.
    fn of_usage(error: &clap::Error) -> Self {
        const HELP: &str = "For more information, try";
        let text = error.render().to_string();
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            let advice = "`--help` lists the commands".to_owned();
            return Self::new("no command was given", Some(advice), Exit::Usage);
        }
        let mut parts = text.split("\n\n").map(line);
        let what = parts.next().unwrap_or_default();
        let what = what.strip_prefix("error: ").unwrap_or(&what).to_owned();
        let advice: Vec<String> = parts
            .filter(|part| !part.is_empty() && !part.starts_with(HELP))
            .chain(["`--help` has more".to_owned()])
            .collect();
        Self::new(what, Some(advice.join("; ")), Exit::Usage)
    }
}

impl Display for ErrorObject {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.error)
    }
}

/// The exit code that says what kind of error it is.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    if error.is::<InputError>() || error.is::<Misconfigured>() || error.is::<Unconfirmed>() {
        Exit::Usage
    } else if error.is::<Unreachable>() {
        Exit::Unreachable
    } else {
        Exit::Failed
    }
}

/// Says what is wrong with a command line, or the help that was asked for, in the way in which it
/// was asked for.
pub(crate) fn usage(error: &clap::Error, line: &[OsString]) -> Exit {
    if error.use_stderr() && wants_json(line) {
        // A reader that has gone is no error, and nobody could be told of another one.
        let _ = output::print(&ErrorObject::of_usage(error), output::Format::Json);
        return Exit::Usage;
    }
    error.exit()
}

/// Whether a command line that cannot be followed asks for JSON.
fn wants_json(line: &[OsString]) -> bool {
    let words = line.iter().map(|word| word.to_string_lossy());
    let words: Vec<_> = words.take_while(|word| word != "--").collect();
    let last = words.iter().enumerate().rev().find_map(|(place, word)| {
        let next = || words.get(place + 1).map(ToString::to_string);
        if let Some(value) = word.strip_prefix("--output") {
            return match value.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if value.is_empty() => next(),
                None => None,
            };
        }
        let short = word
            .strip_prefix('-')
            .filter(|short| !short.starts_with('-'))?;
        let (_, value) = short.split_once('o')?;
        match value {
            "" => next(),
            value => Some(value.trim_start_matches('=').to_owned()),
        }
    });
    let asked = last.or_else(|| std::env::var("HEADWATER_OUTPUT").ok());
    asked.is_some_and(|format| format == "json")
}
