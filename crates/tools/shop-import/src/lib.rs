//! `shop-import`: imports users, products and orders from files.
//!
//! It uses only the services' public HTTP API and can be run repeatedly. Ids and idempotency keys
//! are computed from the lines, so a repeated line is a repeated request.

use anyhow::Context as _;
use terminal::{Exit, complain, output};
use tokio::signal::unix::{SignalKind, signal};

pub use args::Args;
pub use ids::{Kind, mapped};
pub use import::run;
pub use input::InputError;
pub use outage::Outage;
pub use refusals::Refused;
pub use summary::{Counts, Stopped, Summary};

mod args;
mod ids;
mod import;
mod input;
mod lines;
mod outage;
mod problem;
mod records;
mod refusals;
mod requests;
mod seen;
mod summary;

/// The program's name in messages.
const NAME: &str = "shop-import";

/// Parses the command line and the environment. A usage error has already been printed.
pub fn command_line() -> Result<Args, Exit> {
    terminal::command_line(|_, _| ())
}

/// Runs an import, prints its summary or error, and returns the exit code.
pub async fn main(args: Args) -> Exit {
    let format = args.output;
    terminal::end(NAME, import(args).await, format, |error| {
        if error.is::<InputError>() {
            Exit::Usage
        } else {
            Exit::Failed
        }
    })
}

async fn import(args: Args) -> anyhow::Result<Exit> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt()).context("listen for SIGINT")?,
        signal(SignalKind::terminate()).context("listen for SIGTERM")?,
    );
    let stop = async {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
        }
    };
    let format = args.output;
    let summary = run(args, stop).await?;
    if let Some(stopped) = &summary.stopped {
        complain(NAME, &stopped.to_string());
    }
    output::print(&summary, format)?;
    Ok(summary.exit())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_flag_is_also_an_environment_variable() {
        let command = Args::command();
        command.clone().debug_assert();
        for flag in command.get_arguments() {
            let variable = flag.get_env().map(|name| name.to_string_lossy());
            let is_ours = variable.is_some_and(|name| name.starts_with("HEADWATER_"));
            assert!(is_ours, "{}", flag.get_id());
        }
    }
}
