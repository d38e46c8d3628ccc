//! The commands, and running one.

use std::ffi::OsString;

use clap::{CommandFactory as _, Parser, Subcommand};
use client::{Common, exit_of};
use maintenance::{backup, dead_letter, projection, provision, rebuild, restore, stream, verify};
use survey::{check, doctor, status};
use terminal::Exit;

use crate::{decode, new, publish, ready, shell, tail};

/// Operate a Headwater shop
///
/// Exit codes: 0 success, 1 failure, 2 usage error, 3 a difference or a problem was found, 4 the
/// broker or a service cannot be reached.
///
/// With -o json, stdout is one JSON object, or one object per line where there are several results.
/// An error is `{"error", "what_to_do", "exit_code"}`.
#[derive(Debug, Parser)]
#[command(name = "headwater", version)]
pub struct Cli {
    /// Flags that all commands share.
    #[command(flatten)]
    pub common: Common,

    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Each has a module of the same name, here or in a crate shared with other programs.
#[derive(Debug, Subcommand)]
pub enum Command {
    Status(status::Args),
    Doctor(doctor::Args),
    Console(console::Args),
    Projection(projection::Args),
    Provision(provision::Args),
    Check(check::Args),
    Verify(verify::Args),
    Rebuild(rebuild::Args),
    Stream(stream::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    DeadLetter(dead_letter::Args),
    Tail(tail::Args),
    Decode(decode::Args),
    Publish(publish::Args),
    Completions(shell::Completions),
    Man(shell::Man),
    Ready(ready::Args),
    New(new::Args),
    /// A separate program since 0.1. This message is removed in the next version.
    #[command(hide = true, disable_help_flag = true)]
    Import {
        #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<OsString>,
    },
}

/// Parses the command line and the environment. A usage error has already been printed.
pub fn command_line() -> Result<Cli, Exit> {
    terminal::command_line(|cli: &mut Cli, matches| cli.common.nats.prefer_flags(matches))
}

/// Runs one command, prints an error on stderr or, with `-o json`, on stdout, and returns the exit
/// code.
pub async fn run(cli: Cli) -> Exit {
    let common = &cli.common;
    let outcome = match cli.command {
        Command::Status(args) => status::command(common, args).await,
        Command::Projection(args) => projection::command(common, args).await,
        Command::Provision(args) => provision::command(common, args).await,
        Command::Check(args) => check::command(common, args).await,
        Command::Completions(args) => shell::completions(common, &args, Cli::command()),
        Command::Man(args) => shell::man(common, &args, Cli::command()),
        Command::Console(args) => console::command(common, args).await,
        Command::Doctor(args) => doctor::command(common, args).await,
        Command::Verify(args) => verify::command(common, args).await,
        Command::Rebuild(args) => rebuild::command(common, args).await,
        Command::Stream(args) => stream::command(common, args).await,
        Command::Backup(args) => backup::command(common, args).await,
        Command::Restore(args) => restore::command(common, args).await,
        Command::DeadLetter(args) => dead_letter::command(common, args).await,
        Command::Tail(args) => tail::command(common, args).await,
        Command::Decode(args) => decode::command(common, args).await,
        Command::Publish(args) => publish::command(common, args).await,
        Command::Ready(args) => ready::command(common, args).await,
        Command::New(args) => new::command(common, &args),
        Command::Import { .. } => common.refuse(
            "`headwater import` is now a separate program: run `shop-import` with the same flags",
            Exit::Usage,
        ),
    };
    terminal::end("headwater", outcome, common.output, exit_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variables that the NATS CLI also reads.
    const NATS_VARIABLES: [&str; 13] = [
        "NATS_CA",
        "NATS_CERT",
        "NATS_CONTEXT",
        "NATS_CREDS",
        "NATS_INBOX_PREFIX",
        "NATS_KEY",
        "NATS_NKEY",
        "NATS_PASSWORD",
        "NATS_TIMEOUT",
        "NATS_TLS_FIRST",
        "NATS_TOKEN",
        "NATS_URL",
        "NATS_USER",
    ];

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        expect_variables(&Cli::command());
    }

    fn expect_variables(command: &clap::Command) {
        for flag in command.get_arguments().filter(|flag| !flag.is_positional()) {
            let name = format!("{} {}", command.get_name(), flag.get_id());
            let variable = flag
                .get_env()
                .unwrap_or_else(|| panic!("{name} has no variable"));
            let variable = variable.to_string_lossy();
            let usual = NATS_VARIABLES.contains(&&*variable);
            assert!(variable.starts_with("HEADWATER_") || usual, "{name}");
        }
        command.get_subcommands().for_each(expect_variables);
    }
}
