//! The flags of `cargo dev`.

use std::env;
use std::path::{Path, PathBuf};

use clap::builder::{FalseyValueParser, Resettable};
use clap::{Arg, CommandFactory as _, FromArgMatches as _};

/// Leaves room for the other services, also after adding 1000.
const HTTP_PORT_MAX: i64 = 64_000;

/// Build, start, seed and supervise the whole system
///
/// Finds or installs nats-server, builds the services, starts them all (purchases in its three
/// styles), and imports a small catalogue through their HTTP APIs. Ctrl-C stops everything in
/// order; the data stays.
#[derive(Clone, Debug, clap::Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[command(name = "cargo dev", bin_name = "cargo dev")]
pub struct Args {
    /// Folder for the databases, the streams and the broker's log
    #[arg(long, env = "HEADWATER_DEV_DATA", value_name = "DIR", default_value_os_t = workspace().join(".headwater/dev"))]
    pub data: PathBuf,

    /// Delete the contents of the data folder first
    #[arg(long, env = "HEADWATER_DEV_FRESH", value_parser = FalseyValueParser::new())]
    pub fresh: bool,

    /// Port of purchases and its web page. The other services use the next ports, in the distances
    /// of their manifests; health and metrics use the same ports plus 1000. 0 chooses free ports
    #[arg(long, env = "HEADWATER_DEV_HTTP_PORT", value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(..=HTTP_PORT_MAX))]
    pub http_port: u16,

    /// Port of the nats-server to start; 0 chooses a free port
    #[arg(
        long,
        env = "HEADWATER_DEV_NATS_PORT",
        value_name = "PORT",
        default_value_t = 4222
    )]
    pub nats_port: u16,

    /// Use the broker at this URL instead of starting one
    #[arg(long, env = "HEADWATER_DEV_NATS_URL", value_name = "URL")]
    pub nats_url: Option<String>,

    /// Do not import the catalogue
    #[arg(long, env = "HEADWATER_DEV_NO_SEED", value_parser = FalseyValueParser::new())]
    pub no_seed: bool,

    /// Port of the control room; 0 chooses a free port [default: 100 above --http-port]
    #[arg(long, env = "HEADWATER_DEV_ROOM_PORT", value_name = "PORT")]
    pub room_port: Option<u16>,

    /// Do not open the control room
    #[arg(long, env = "HEADWATER_DEV_NO_ROOM", value_parser = FalseyValueParser::new())]
    pub no_room: bool,

    /// Build the services with optimisations
    #[arg(long, env = "HEADWATER_DEV_RELEASE", value_parser = FalseyValueParser::new())]
    pub release: bool,

    /// Output format of the summary on stdout
    #[arg(
        long,
        env = "HEADWATER_DEV_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub output: Output,
}

/// Output format of the summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Text for people
    #[default]
    Text,
    /// One JSON object on one line
    Json,
}

/// The root of the workspace that this program was built from.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(3)
        .expect("this crate is in crates/tools/dev")
        .to_owned()
}

impl Args {
    /// Parses the command line and the environment; an empty variable counts as unset, as for the
    /// services. Exits on a usage error.
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
