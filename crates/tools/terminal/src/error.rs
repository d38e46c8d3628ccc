//! The command line, and errors: as text or, with `-o json`, as objects.

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};

use clap::error::ErrorKind;
use clap::{ArgMatches, Parser};
use serde::Serialize;

use crate::exit::Exit;
use crate::output::{self, Format, complain, printable};

/// Why a command failed.
#[derive(Debug, Serialize)]
pub struct ErrorObject {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    what_to_do: Option<String>,
    exit_code: u8,
}

impl ErrorObject {
    pub fn new(error: impl Into<String>, what_to_do: Option<String>, exit: Exit) -> Self {
        Self {
            error: error.into(),
            what_to_do,
            exit_code: exit.code(),
        }
    }

    pub fn of(error: &anyhow::Error, exit: Exit) -> Self {
        let text = headwater::causes(error.as_ref());
        // These messages end with what to do.
        let is_advised = matches!(exit, Exit::Usage | Exit::Unreachable);
        match text.rsplit_once("; ") {
            Some((what, advice)) if is_advised => Self::new(what, Some(advice.to_owned()), exit),
            _ => Self::new(text, None, exit),
        }
    }

    /// The error of an invalid command line.
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

/// Parses the command line and the environment, then calls `then` on the result. A usage error has
/// already been printed.
pub fn command_line<T: Parser>(then: impl FnOnce(&mut T, &ArgMatches)) -> Result<T, Exit> {
    let line: Vec<OsString> = std::env::args_os().collect();
    let read = || {
        let command = headwater::without_empty_variables(T::command());
        let matches = command.try_get_matches_from(&line)?;
        let mut read = T::from_arg_matches(&matches)?;
        then(&mut read, &matches);
        Ok(read)
    };
    read().map_err(|error| usage(&error, &line))
}

/// Prints an error, on stderr or, in JSON, on stdout, and returns the exit code. `exit_of`: the
/// exit code for an error.
pub fn end(
    program: &str,
    outcome: anyhow::Result<Exit>,
    format: Format,
    exit_of: impl FnOnce(&anyhow::Error) -> Exit,
) -> Exit {
    outcome.unwrap_or_else(|error| {
        if output::is_closed(&error) {
            return Exit::Done;
        }
        let exit = exit_of(&error);
        let object = ErrorObject::of(&error, exit);
        let is_said = format == Format::Json && output::print(&object, format).is_ok();
        if !is_said {
            complain(program, &printable(&headwater::causes(error.as_ref())));
        }
        exit
    })
}

/// Prints a usage error, or the help, in the format that was asked for.
fn usage(error: &clap::Error, line: &[OsString]) -> Exit {
    if error.use_stderr() && wants_json(line) {
        // A closed stdout is not an error, and any other error could not be printed.
        let _ = output::print(&ErrorObject::of_usage(error), Format::Json);
        return Exit::Usage;
    }
    error.exit()
}

/// Whether an invalid command line asks for JSON.
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
