//! What every service is told at its start: flags, each also an environment variable.

use std::env;
use std::ffi::OsStr;
use std::time::Duration;

use clap::Command;
use clap::builder::Resettable;

use crate::{bus, database, http, telemetry};

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
    /// Seconds that requests and events under way have to end when the service stops
    #[arg(long, env = "HEADWATER_DRAIN_S", default_value_t = 10)]
    pub drain_s: u64,
}

impl Config {
    /// How long a stop may take.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_s)
    }
}

/// Reads the command line and the environment of this process. Where they are wrong, or ask for
/// help, it says so and ends the process.
pub fn parse<P: clap::Parser>() -> P {
    let matches = without_empty_variables(P::command()).get_matches();
    P::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut P::command()).exit())
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
