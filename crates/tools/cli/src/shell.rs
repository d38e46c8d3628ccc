//! `headwater completions` and `headwater man`: completion scripts and manual pages.

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use client::Common;
use serde_json::json;
use terminal::Exit;
use terminal::output::Format;

/// Print a completion script for a shell
///
/// For example `headwater completions bash > /etc/bash_completion.d/headwater`.
#[derive(Clone, Debug, clap::Args)]
pub struct Completions {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Print the manual page, or write one page per command to a folder
///
/// For example `headwater man /usr/local/share/man/man1`.
#[derive(Clone, Debug, clap::Args)]
pub struct Man {
    /// The folder; without it, print the page of the tool itself
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

pub(crate) fn completions(
    common: &Common,
    args: &Completions,
    mut tool: Command,
) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut tool, "headwater", &mut text);
    write(common, "script", text)
}

pub(crate) fn man(common: &Common, args: &Man, tool: Command) -> anyhow::Result<Exit> {
    let Some(folder) = &args.folder else {
        let mut text = Vec::new();
        clap_mangen::Man::new(tool)
            .render(&mut text)
            .context("generate the page")?;
        return write(common, "page", text);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    clap_mangen::generate_to(tool, folder)
        .with_context(|| format!("write to {}", folder.display()))?;
    if common.output == Format::Json {
        return write(common, "folder", folder.display().to_string().into());
    }
    Ok(Exit::Done)
}

/// Writes a text unchanged; in JSON, as the only member `name` of an object.
fn write(common: &Common, name: &str, mut text: Vec<u8>) -> anyhow::Result<Exit> {
    if common.output == Format::Json {
        let object = json!({ name: String::from_utf8_lossy(&text) });
        text = format!("{object}\n").into();
    }
    match std::io::stdout().write_all(&text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("write to stdout")
        }
        _ => Ok(Exit::Done),
    }
}
