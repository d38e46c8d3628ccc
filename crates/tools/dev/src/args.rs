//! The flags of `cargo dev`.

use std::env;
use std::path::{Path, PathBuf};

use clap::builder::{FalseyValueParser, Resettable};
use clap::{Arg, CommandFactory as _, FromArgMatches as _};

/// The last port that has five others after it, a thousand ports on as well.
const HTTP_PORT_MAX: i64 = 64_530;

/// Build, start, seed and supervise the whole system
///
/// Finds or installs nats-server, builds the four services, starts them all (purchases in its three
/// styles), and brings in a small catalogue through their HTTP APIs. Ctrl-C stops everything in order; the data stays.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "cargo dev", bin_name = "cargo dev")]
pub struct Args {
    /// Folder for the databases, the streams and the broker's log
    #[arg(long, env = "HEADWATER_DEV_DATA", value_name = "DIR", default_value_os_t = workspace().join(".headwater/dev"))]
    pub data: PathBuf,

    /// Delete what is in the data folder first
    #[arg(long, env = "HEADWATER_DEV_FRESH", value_parser = FalseyValueParser::new())]
    pub fresh: bool,

    /// Port of purchases and its web page; users, products, orders and purchases in its two other
    /// styles get the next five. Health and metrics of each are a thousand ports on. 0 takes free
    /// ones
    #[arg(long, env = "HEADWATER_DEV_HTTP_PORT", value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(..=HTTP_PORT_MAX))]
    pub http_port: u16,

    /// Port of the nats-server that is started; 0 takes a free one
    #[arg(
        long,
        env = "HEADWATER_DEV_NATS_PORT",
        value_name = "PORT",
        default_value_t = 4222
    )]
    pub nats_port: u16,

    /// Use the broker that runs here, and start none
    #[arg(long, env = "HEADWATER_DEV_NATS_URL", value_name = "URL")]
    pub nats_url: Option<String>,

    /// Leave the catalogue out
    #[arg(long, env = "HEADWATER_DEV_NO_SEED", value_parser = FalseyValueParser::new())]
    pub no_seed: bool,

    /// Build the services with optimisations
    #[arg(long, env = "HEADWATER_DEV_RELEASE", value_parser = FalseyValueParser::new())]
    pub release: bool,

    /// How to print the summary on stdout
    #[arg(
        long,
        env = "HEADWATER_DEV_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub output: Output,
}

/// How to print the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Text,
    /// One JSON object on one line
    Json,
}

/// The root of the workspace that this was built from.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .expect("this crate is in crates/tools/dev")
        .to_owned()
}

impl Args {
    /// Reads the command line and the environment; an empty variable is an unset one, as for the
    /// services. Ends the process where they cannot be followed.
    pub fn read() -> Self {
        let is_empty = |arg: &Arg| {
            let value = arg.get_env().and_then(env::var_os);
            value.is_some_and(|value| value.is_empty())
        };
        let command = Self::command().mut_args(|arg| {
            if is_empty(&arg) {
                arg.env(Resettable::Reset)
            } else {
                arg
            }
        });
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        for flag in Args::command().get_arguments() {
            let name = flag.get_id().as_str().to_uppercase();
            let variable = flag.get_env().expect("a variable").to_string_lossy();
            assert_eq!(variable, format!("HEADWATER_DEV_{name}"));
        }
    }
}
