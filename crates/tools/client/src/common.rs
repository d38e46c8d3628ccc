//! Flags that all commands share: the connection and the output format.

use std::fmt::Display;

use serde::Serialize;
use terminal::output::{self, Format};
use terminal::{ErrorObject, Exit};

use crate::args::Args;
use crate::failure::{Error, complain};
use crate::nats::Nats;

/// Flags that all commands share. They may stand before or after the command.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Common {
    /// Output format
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

    /// The connection.
    #[command(flatten)]
    pub nats: Args,
}

impl Common {
    pub async fn connect(&self) -> Result<Nats, Error> {
        Nats::connect(&self.nats).await
    }

    /// Prints a command's result on stdout.
    pub fn print(&self, result: &(impl Display + Serialize)) -> anyhow::Result<()> {
        output::print(result, self.output)
    }

    /// Prints why the command was refused: on stderr or, in JSON, on stdout.
    pub fn refuse(&self, why: &str, exit: Exit) -> anyhow::Result<Exit> {
        match self.output {
            Format::Text => complain(&output::printable(why)),
            Format::Json => self.print(&ErrorObject::new(why, None, exit))?,
        }
        Ok(exit)
    }
}
