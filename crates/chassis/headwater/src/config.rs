//! The settings of every service: flags, each also an environment variable.

use std::env;
use std::ffi::OsStr;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command, FromArgMatches as _};
use headwater_http as http;
use headwater_http::About;
use headwater_nats::access::Access;
use headwater_nats::bus;
use headwater_store as database;
use headwater_telemetry as telemetry;
use headwater_telemetry::{BoxError, Format, causes};

use crate::error::Result;
use crate::renamed;

/// The exit code of settings that cannot be followed. The same as clap's.
const UNUSABLE: i32 = 2;

/// What is logged of them.
const WRONG: &str = "the settings cannot be followed";

/// Has the settings checked. No variable: in the environment of a unit it would keep the service
/// from ever starting.
const CHECK: &str = "check";

/// The configuration of a service, made to be flattened into its own.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub struct Config {
    /// HTTP.
    #[command(flatten)]
    pub http: http::Config,
    /// The service's database.
    #[command(flatten)]
    pub database: database::Config,
    /// The broker.
    #[command(flatten)]
    pub nats: bus::Config,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Config,
    /// Time that requests and events in progress have to finish when the service stops
    #[arg(
        long,
        env = "HEADWATER_DRAIN_TIMEOUT",
        value_name = "DURATION",
        value_parser = telemetry::duration,
        default_value = "10s"
    )]
    pub drain_timeout: Duration,
}

impl Config {
    /// What would keep a service with these settings from starting, as far as can be seen without
    /// opening its database or its ports.
    fn problems(&self, service: &str) -> Vec<String> {
        let checked: [Result<(), BoxError>; 4] = [
            telemetry::check(&self.telemetry).map_err(Into::into),
            self.http.admin_address().map(drop).map_err(Into::into),
            database::check(&self.database).map_err(Into::into),
            Access::check(service, &self.nats).map_err(Into::into),
        ];
        let problems = checked.into_iter().filter_map(Result::err);
        problems.map(|error| causes(&*error)).collect()
    }
}

/// The command line of a service with the settings `C`: either a [`Config`], or those with a
/// flattened `Config` among them. By default, the service listens on its port of the loopback
/// address, and its database is in the working directory.
pub fn command<C: clap::Args>(about: &About) -> Command {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, about.port)).to_string();
    let database = format!("{}.db", about.name);
    C::augment_args(Command::new(format!("headwater-{}", about.name)))
        .about(about.description)
        .long_about(None)
        .version(about.version)
        .mut_arg("listen", |arg| arg.default_value(listen))
        .mut_arg("path", |arg| arg.required(false).default_value(database))
}

/// The settings of a service from `arguments`, without the name of the program, and from the
/// environment: for tests.
///
/// # Panics
/// They are invalid.
pub fn settings<C: clap::Args>(about: &About, arguments: &[&str]) -> C {
    let arguments = std::iter::once(&about.name).chain(arguments);
    let matches = command::<C>(about).try_get_matches_from(arguments);
    let settings = matches.and_then(|matches| C::from_arg_matches(&matches));
    settings.unwrap_or_else(|error| panic!("{error}"))
}

/// Reads the command line and the environment of this process: all settings, those that every
/// service has, and, by `name`, the name under which the service runs. If they are invalid, or ask
/// for help or a check, prints the answer and ends the process.
pub(crate) fn parse<C: clap::Args>(
    about: &About,
    name: impl FnOnce(&C) -> Result<&'static str>,
) -> (C, Config, &'static str) {
    let command = without_empty_variables(command::<C>(about)).arg(
        Arg::new(CHECK)
            .long(CHECK)
            .action(ArgAction::SetTrue)
            .help("Check the settings and the files that they name, then exit: with 0 if they are valid, otherwise with 2 and what is wrong. Opens no database and no port"),
    );
    let words = renamed::replaced(&command, env::args_os(), |name| env::var_os(name));
    let read = command
        .clone()
        .try_get_matches_from(words)
        .and_then(|matches| {
            let read = C::from_arg_matches(&matches)
                .and_then(|settings| Ok((settings, Config::from_arg_matches(&matches)?)));
            let read = read.map_err(|error| error.format(&mut command.clone()))?;
            Ok((read, matches.get_flag(CHECK)))
        });
    match read {
        Ok(((settings, config), is_check)) => {
            let named = name(&settings);
            let mut problems = Vec::new();
            if is_check {
                problems = config.problems(named.as_ref().map_or(about.name, |name| name));
            }
            problems.extend(named.as_ref().err().map(|error| causes(error)));
            match named {
                Ok(name) if problems.is_empty() && !is_check => (settings, config, name),
                _ if problems.is_empty() => std::process::exit(0),
                _ => telemetry::fail(config.telemetry.format, WRONG, &problems, UNUSABLE),
            }
        }
        Err(error) => refuse(&error, &command),
    }
}

/// Says what is wrong with the command line or a variable, as the service would log it, or the
/// help that was asked for, and ends the process.
fn refuse(error: &clap::Error, command: &Command) -> ! {
    let lenient = command.clone().ignore_errors(true).try_get_matches().ok();
    let format = lenient.and_then(|matches| {
        let format = matches.try_get_one::<Format>("format");
        format.ok().flatten().copied()
    });
    let format = format.unwrap_or(Format::Auto);
    if !error.use_stderr() || matches!(format.here(), Format::Pretty) {
        error.exit();
    }
    telemetry::fail(format, WRONG, &[in_one_line(error, command)], UNUSABLE)
}

/// The error itself, without hints at usage, and with the variable that may be at fault.
fn in_one_line(error: &clap::Error, command: &Command) -> String {
    let text = error.render().to_string();
    let text = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = text.split_whitespace().collect();
    let text = words.join(" ");
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else {
        return text.to_owned();
    };
    let flag = named.trim_start_matches('-').split_whitespace().next();
    let mut arguments = command.get_arguments();
    let variable = arguments
        .find(|argument| argument.get_long() == flag)
        .and_then(Arg::get_env);
    match variable {
        Some(variable) => format!("{text} ({})", variable.display()),
        None => text.to_owned(),
    }
}

/// `command`, to which an empty environment variable is an unset one: compose files and units set
/// variables that have no value yet, and mean nothing by it.
pub fn without_empty_variables(command: Command) -> Command {
    without_variables(command, |name| {
        env::var_os(name).is_some_and(|value| value.is_empty())
    })
}

fn without_variables(command: Command, is_unset: fn(&OsStr) -> bool) -> Command {
    command
        .mut_args(|arg| {
            if arg.get_env().is_some_and(is_unset) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        })
        .mut_subcommands(|command| without_variables(command, is_unset))
}

#[cfg(test)]
mod tests {
    use clap::{Arg, Args as _};

    use super::*;

    #[test]
    fn an_empty_variable_of_any_flag_is_an_unset_one() {
        let command = || {
            let nested = Command::new("nested").arg(Arg::new("deep").env("DEEP"));
            Config::augment_args(Command::new("service")).subcommand(nested)
        };
        let left = |command: Command| {
            let nested = command.get_subcommands().flat_map(Command::get_arguments);
            let all = command.get_arguments().chain(nested);
            all.filter(|arg| arg.get_env().is_some()).count()
        };
        assert!(left(command()) > 20);
        assert_eq!(left(without_variables(command(), |_| true)), 0);
        let set = left(without_variables(command(), |_| false));
        assert_eq!(set, left(command()));
        // As where all of them are empty: nothing is taken from them, and nothing is missed.
        let matches = without_variables(command(), |_| true).try_get_matches_from([
            "service",
            "--database",
            "a.db",
            "--listen",
            "[::1]:0",
        ]);
        assert!(matches.is_ok(), "{matches:?}");
    }
}
