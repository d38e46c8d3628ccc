//! The operator's tool `headwater`: one module per command.

use std::io::Write as _;

use clap::{Parser, Subcommand};

pub use exit::Exit;

mod exit;
pub mod import;
pub mod output;

/// The operator's tool of the Headwater shop
///
/// Exit codes: 0 all went well, 1 something failed, 2 the command line cannot be followed, 4 a
/// service cannot be reached.
#[derive(Debug, Parser)]
#[command(name = "headwater", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands; each has a module of its name.
#[derive(Debug, Subcommand)]
pub enum Command {
    Import(import::Args),
}

/// Runs one command, tells the operator about an error on stderr, and answers with the exit code.
pub async fn run(cli: Cli) -> Exit {
    let outcome = match cli.command {
        Command::Import(args) => import::command(args).await,
    };
    outcome.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        if error.is::<import::InputError>() {
            Exit::Usage
        } else {
            Exit::Failed
        }
    })
}

/// A closed stderr leaves nobody to tell, so that a failed write is ignored.
pub(crate) fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "headwater: {what}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        for command in Cli::command().get_subcommands() {
            for flag in command.get_arguments() {
                let variable = flag
                    .get_env()
                    .unwrap_or_else(|| panic!("{flag} has no variable"));
                assert!(
                    variable.to_string_lossy().starts_with("HEADWATER_"),
                    "{flag}"
                );
            }
        }
    }
}
