//! What all commands share: where NATS is, how to print, and asking before what cannot be undone.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use crate::error::ErrorObject;
use crate::nats::{self, Nats};
use crate::output::{self, Format};
use crate::{Exit, complain};

/// What all commands are told; the flags may stand before or after the command.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Common {
    /// How to print the result
    #[arg(
        global = true,
        short,
        long,
        value_name = "FORMAT",
        env = "HEADWATER_OUTPUT",
        value_enum,
        default_value_t
    )]
    pub output: Format,

    /// NATS.
    #[command(flatten)]
    pub nats: nats::Args,
}

/// Nobody said that it may be done; nothing was.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unconfirmed(String);

impl Common {
    /// Errors with [`nats::Misconfigured`] or [`nats::Unreachable`].
    pub(crate) async fn connect(&self) -> anyhow::Result<Nats> {
        Nats::connect(&self.nats).await
    }

    /// Prints a command's result on stdout.
    pub(crate) fn print(&self, result: &(impl Display + Serialize)) -> anyhow::Result<()> {
        output::print(result, self.output)
    }

    /// Says why it was not done: on stderr or, in JSON, on stdout.
    pub(crate) fn refuse(&self, why: &str, exit: Exit) -> anyhow::Result<Exit> {
        match self.output {
            Format::Text => complain(&output::printable(why)),
            Format::Json => self.print(&ErrorObject::new(why, None, exit))?,
        }
        Ok(exit)
    }
}

impl Unconfirmed {
    pub(crate) fn new(message: String) -> Self {
        Self(message)
    }
}

/// Asks whether to do `what`, on a terminal; elsewhere only `--yes` will do. Errors with
/// [`Unconfirmed`].
pub(crate) fn confirm(what: &str, is_confirmed: bool) -> anyhow::Result<()> {
    if is_confirmed {
        return Ok(());
    }
    ask(what, "--yes")
}

/// Asks whether to do `what`, on a terminal; elsewhere the flags named by `how` confirm it. Errors
/// with [`Unconfirmed`].
pub(crate) fn ask(what: &str, how: &str) -> anyhow::Result<()> {
    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let message = format!("{what}: nothing was done; say that you mean it with {how}");
        return Err(Unconfirmed(message).into());
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{what}? [y/N] ").context("ask on stderr")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("read the answer")?;
    if answer.trim().eq_ignore_ascii_case("y") || answer.trim().eq_ignore_ascii_case("yes") {
        return Ok(());
    }
    Err(Unconfirmed(format!("{what}: nothing was done")).into())
}
